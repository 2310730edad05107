//! How RocksDB is set up, and why. The users append keys in ascending order and forget from the front; figures are from
//! measurements with 64 KiB batches on two cores and ext4.

use rocksdb::{BlockBasedOptions, Cache, ChecksumType, DBCompressionType, DBRecoveryMode, Options, WriteBufferManager};

/// Where RocksDB would switch a memtable by itself. We do it at half of that: see `Memtables`.
pub(crate) const MEMTABLE_BYTES: usize = 16 << 20;

/// What all memtables may take, those that are being flushed included; then writers are told `Busy`. RocksDB would
/// switch one by itself when half of this is being filled, which is more than `Memtables` lets it come to.
pub(crate) const MEMTABLES_BYTES: usize = 128 << 20;

/// Where RocksDB would switch memtables by itself to be rid of old log files; `Memtables` does it well before.
const LOGS_BYTES: u64 = 192 << 20;

const CACHE_BYTES: usize = 8 << 20;

/// How much damage opening puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// Any damage is an error, except a record cut off at the end of a log, as a power cut leaves one.
    Strict,
    /// Damaged records of the log are left out, and log files may be missing.
    LogMayBeDamaged,
    /// The log ends at its first damaged record, and log files may be missing.
    LogEndsAtDamage,
    /// Besides, tables may be missing or damaged, and nothing works on them: to read what can be read.
    TablesMayBeDamaged,
}

/// The options of the database and, by clones, of each column family: they share one cache.
pub(crate) fn options(care: Care) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);

    // Log. Off means that each write reaches the kernel before it returns, so that kill -9 loses nothing.
    options.set_manual_wal_flush(false);
    // The default mode drops all that follows a damaged block without an error: 1,001 of 2,000 records in a test.
    options.set_wal_recovery_mode(match care {
        Care::Strict => DBRecoveryMode::TolerateCorruptedTailRecords,
        Care::LogMayBeDamaged | Care::TablesMayBeDamaged => DBRecoveryMode::SkipAnyCorruptedRecord,
        Care::LogEndsAtDamage => DBRecoveryMode::PointInTime,
    });
    // A log file that is gone, or shorter than it was when it was closed, is then noticed.
    options.set_track_and_verify_wals_in_manifest(care == Care::Strict);
    options.set_paranoid_checks(care != Care::TablesMayBeDamaged);
    options.set_disable_auto_compactions(care == Care::TablesMayBeDamaged);
    options.set_max_total_wal_size(LOGS_BYTES);
    // Written back as it goes, so that a sync has little left to do (127 ms at worst without).
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_bytes_per_sync(1 << 20);

    // Memory. The manager stalls writers at its bound, and writers that are not to wait are told `Busy`.
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_target_file_size_base(MEMTABLE_BYTES as u64);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(MEMTABLES_BYTES, true));
    // Each family that holds anything takes a block; with the default of an eighth of the memtable, 64 families of a
    // few records each would take 128 MiB.
    options.set_arena_block_size(64 << 10);
    let mut blocks = BlockBasedOptions::default();
    // One that we can compute, for what remains of a damaged table: see `remains`.
    blocks.set_checksum_type(ChecksumType::CRC32c);
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    options.set_block_based_table_factory(&blocks);
    options.set_max_open_files(256);

    // Ascending keys: a file of level 0 is moved down at once, not rewritten (write amplification 1.8 to 2.0), and only
    // files below level 0 can be forgotten whole.
    options.set_level_zero_file_num_compaction_trigger(1);
    // The users compress values themselves, which makes the log smaller as well.
    options.set_compression_type(DBCompressionType::None);
    options.set_max_background_jobs(2);

    // RocksDB's own text log would grow without end.
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options
}
