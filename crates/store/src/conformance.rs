//! One suite that every store passes: what [`crate::Store`] promises, as tests.
//!
//! A store's crate implements [`Harness`] for it and calls [`crate::conformance_tests!`], which makes one `#[test]` of
//! each case. A case panics with a sentence when the promise does not hold.

#![allow(clippy::missing_panics_doc, reason = "every function here is a test, and a test fails by panicking")]

mod cases;
mod forget_and_salvage;
mod model;

pub use cases::*;
pub use forget_and_salvage::*;
pub use model::random_histories_match_a_model;

use crate::{Store, StoreError, WriteBatch};
use std::ops::ControlFlow;

/// What a case needs from a store under test. A harness is used for one case and then dropped.
pub trait Harness {
    /// Opens a new, empty store that holds at least 256 MiB. Earlier ones may be forgotten.
    fn fresh(&mut self) -> Box<dyn Store>;

    /// Closes `store` in good order and opens it again: nothing may be missing.
    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store>;

    /// Ends `store` as a crash would, as rudely as the harness can, and opens it again. Batches that were not synced
    /// may be missing from some batch on.
    fn crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store>;

    /// Opens a new, empty store with a quota of `quota_bytes`.
    fn fresh_with_quota(&mut self, quota_bytes: u64) -> Box<dyn Store>;

    /// Makes each of these entries unreadable, few others with it, and opens `store` again.
    fn damage(&mut self, store: Box<dyn Store>, entries: &[(&[u8], &[u8])]) -> Box<dyn Store>;
}

/// Makes a `#[test]` of every case; `$harness` is an expression that makes a new harness.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::conformance_tests! { @each $harness;
            an_empty_store_holds_nothing
            a_written_value_is_read_back_and_overwritten
            an_empty_batch_changes_nothing
            empty_and_large_values_come_back_unchanged
            scans_are_in_byte_order_and_within_bounds
            a_scan_ends_when_the_visitor_breaks
            a_deleted_key_is_gone_and_can_come_back
            delete_range_takes_its_first_key_and_leaves_its_last
            operations_of_one_batch_take_effect_in_order
            reopening_keeps_everything
            a_crash_keeps_what_was_synced
            a_crash_after_any_write_keeps_a_prefix_of_whole_batches
            hundred_thousand_small_keys_survive
            a_full_store_refuses_whole_batches_and_accepts_deletes
            a_full_store_takes_writes_again_after_deletes
            keys_of_many_families_are_one_ordered_space
            forgetting_takes_nothing_else_with_it
            a_store_whose_owner_forgets_never_fills_up
            salvage_of_a_sound_store_is_a_scan
            salvage_goes_on_behind_damage_and_names_the_holes
            random_histories_match_a_model
        }
    };
    (@each $harness:expr; $($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::$case(&mut $harness);
            }
        )+
    };
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The value of a step that must not fail.
#[track_caller]
fn must<T>(result: Result<T, StoreError>, doing: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{doing}: {error}"),
    }
}

/// All entries in `from..to`, in the order of the scan.
#[track_caller]
fn entries_between(store: &dyn Store, from: &[u8], to: &[u8]) -> Entries {
    let mut entries = Entries::new();
    must(
        store.scan(from, to, &mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        }),
        "scan",
    );
    entries
}

/// All entries of the store.
#[track_caller]
fn entries(store: &dyn Store) -> Entries {
    entries_between(store, b"", crate::END)
}

/// A batch that puts every pair.
fn puts(pairs: &[(&[u8], &[u8])]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in pairs {
        batch.put(key, value);
    }
    batch
}

/// Fails unless the store holds exactly `expected`, by scan and by get.
#[track_caller]
fn check_holds(store: &dyn Store, expected: &[(&[u8], &[u8])]) {
    let expected: Entries = expected.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(entries(store), expected, "entries of the store");
    for (key, value) in &expected {
        assert_eq!(must(store.get(key), "get").as_deref(), Some(value.as_slice()), "value of a scanned key");
    }
}
