//! How much of everything.

const MIB: u64 = 1 << 20;
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Files of 4 KiB.
    pub small: u64,
    /// Files of many sizes, about 27 KiB each.
    pub mixed: u64,
    /// Bytes of each of two files.
    pub dense: u64,
    pub sparse: u64,
    /// Bytes of data in the sparse file.
    pub sparse_data: u64,
    pub empty: u64,
    /// Bytes of each of the two devices: no more than the largest work needs, and the size of
    /// the block volume.
    pub disk: u64,
    /// That ext4 is made with; XFS makes them as it goes.
    pub inodes: u64,
}

impl Sizes {
    pub const FULL: Self = Sizes {
        small: 100_000,
        mixed: 20_000,
        dense: 1024 * MIB,
        sparse: 20 * 1024 * MIB,
        sparse_data: 64 * MIB,
        empty: 1_000_000,
        disk: 2560 * MIB,
        inodes: 1_100_000,
    };
    /// mkfs.xfs makes nothing smaller than 300 MiB.
    pub const QUICK: Self = Sizes {
        small: 2000,
        mixed: 1000,
        dense: 16 * MIB,
        sparse: 1024 * MIB,
        sparse_data: 4 * MIB,
        empty: 10_000,
        disk: 320 * MIB,
        inodes: 40_000,
    };
}

/// As people write large numbers.
pub fn thousands(number: u64) -> String {
    match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (head, rest) => format!("{},{rest:03}", thousands(head)),
    }
}

/// In GiB or MiB.
pub fn size(bytes: u64) -> String {
    match bytes / MIB {
        mib if mib % 1024 == 0 => format!("{} GiB", mib / 1024),
        mib if mib > 1024 && mib % 512 == 0 => format!("{}.5 GiB", mib / 1024),
        mib => format!("{mib} MiB"),
    }
}
