//! A shard's partitions from the store: the fold of the log over the last checkpoint.

use std::ops::ControlFlow;

use engine::final_node::{self, Partition};
use engine::window::BlockId;
use store::{Store, StoreError};

use super::role::FinalRole;

/// Rebuilds one partition; empty where the store has nothing of it.
///
/// # Errors
/// Says what is wrong when the store cannot be read, or what it holds is not understood.
pub(crate) fn partition(number: u16, role: &FinalRole) -> Result<Partition, String> {
    let mut partition = Partition::new(number);
    let (blocks, records) =
        role.with_store(|store| read(number, store, &mut partition)).map_err(|e| e.to_string())??;
    for (id, bytes) in blocks {
        partition.restore_block(id, &bytes).map_err(|error| error.to_string())?;
    }
    for (record, bytes) in records {
        partition.replay(record, &bytes, &mut |id| load(number, role, id)).map_err(|error| error.to_string())?;
    }
    Ok(partition)
}

type Content = (Vec<(BlockId, Vec<u8>)>, Vec<(u64, Vec<u8>)>);

/// Reads everything of one partition; takes up the checkpoint's meta record, which says where the log begins.
fn read(number: u16, store: &dyn Store, partition: &mut Partition) -> Result<Result<Content, String>, StoreError> {
    if let Some(meta) = store.get(&final_node::meta_key(number))?
        && let Err(error) = partition.restore(&meta)
    {
        return Ok(Err(error.to_string()));
    }
    let mut blocks = Vec::new();
    let (from, to) = final_node::block_range(number);
    store.scan(&from, &to, &mut |key, bytes| {
        blocks.extend(final_node::block_of_key(key).map(|id| (id, bytes.to_vec())));
        ControlFlow::Continue(())
    })?;
    let mut records = Vec::new();
    let (from, to) = (final_node::log_key(number, partition.log_from()), final_node::log_key(number, u64::MAX));
    store.scan(&from, &to, &mut |key, bytes| {
        records.extend(final_node::number_of_log_key(key).map(|record| (record, bytes.to_vec())));
        ControlFlow::Continue(())
    })?;
    Ok(Ok((blocks, records)))
}

/// The snapshot of one block.
pub(crate) fn load(partition: u16, role: &FinalRole, id: BlockId) -> Option<Vec<u8>> {
    let found = role.with_store(|store| store.get(&final_node::block_key(partition, id))).ok().flatten();
    found.map(|bytes| bytes.to_vec())
}
