//! Big files: their parts are copied by all threads at once, past the page cache where the file
//! systems allow it.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pvmigrate_record::order::What;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;

use super::file::Copying;
use super::{Directory, Item, Pass};
use crate::chunks::{CHUNK, Chunk};
use crate::content::write::set_size;
use crate::content::{Copier, Job};
use crate::fault::Fault;
use crate::lock::lock;
use crate::meta::Meta;
use crate::quiet::open_quietly;
use crate::reader::Input;

/// From this size on, in bytes, a file is copied in parts.
const BIG: u64 = 4 * PART;
/// The length of a part, in bytes: whole chunks.
const PART: u64 = 8 * CHUNK;

/// A big file on its way.
pub(super) struct Big {
    directory: Directory,
    name: CString,
    copying: Copying,
    from_direct: Option<OwnedFd>,
    to_direct: Option<OwnedFd>,
    next: AtomicU64,
    /// Parts that are not done.
    left: AtomicU64,
    failed: AtomicBool,
    wrote: AtomicBool,
    chunks: Mutex<Vec<Chunk>>,
}

impl Big {
    fn parts(&self) -> u64 {
        self.copying.meta.size.div_ceil(PART)
    }

    fn part(&self, index: u64) -> Range<u64> {
        index * PART..((index + 1) * PART).min(self.copying.meta.size)
    }

    fn job(&self) -> Job<'_> {
        let job = self.copying.job();
        Job {
            from: Input {
                direct: self.from_direct.as_ref().map(AsFd::as_fd),
                ..job.from
            },
            to_direct: self.to_direct.as_ref().map(AsFd::as_fd),
            ..job
        }
    }
}

pub(super) fn is_big(meta: &Meta) -> bool {
    meta.size >= BIG
}

impl Pass<'_> {
    /// Puts the parts of a file on the stack.
    pub(super) fn begin_big(
        &self,
        directory: &Directory,
        name: &CStr,
        copying: Copying,
    ) -> Result<(), Fault> {
        let sides = self.sides(directory)?;
        // Past the cache while an application runs, which needs it. With nobody to disturb, the
        // cache is faster (docs/benchmarks.md). File systems without direct I/O refuse to open so.
        let direct = |side, flags| {
            let wanted = self.with.what == What::Warm;
            wanted
                .then(|| open_quietly(side, name, flags | OFlags::DIRECT).ok())
                .flatten()
        };
        let big = Big {
            directory: Arc::clone(directory),
            name: name.to_owned(),
            from_direct: direct(sides.source(), OFlags::RDONLY),
            to_direct: direct(sides.destination(), OFlags::WRONLY),
            next: AtomicU64::new(0),
            left: AtomicU64::new(copying.meta.size.div_ceil(PART)),
            failed: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            chunks: Mutex::default(),
            copying,
        };
        // Before its parts come in any order.
        if big.copying.found.is_none() {
            set_size(big.copying.to.as_fd(), big.copying.meta.size)?;
        } else {
            big.job().set_size()?;
        }
        directory.begin();
        self.pool.push(Item::Part(Arc::new(big)));
        Ok(())
    }

    /// Copies the next part of a file; the last one finishes it.
    pub(super) fn part(&self, big: &Arc<Big>, copier: &mut Copier<'_>) {
        let index = big.next.fetch_add(1, Ordering::Relaxed);
        if index + 1 < big.parts() {
            self.pool.push(Item::Part(Arc::clone(big)));
        }
        if !big.failed.load(Ordering::Relaxed) {
            let done = copier.done;
            let mut chunks = Vec::new();
            let outcome = copier.part(&big.job(), big.part(index), &mut chunks);
            self.tally(copier, done);
            if copier.done.written > done.written {
                big.wrote.store(true, Ordering::Relaxed);
            }
            match outcome {
                Ok(_) => lock(&big.chunks).append(&mut chunks),
                Err(fault) if !big.failed.swap(true, Ordering::Relaxed) => {
                    self.fault(&big.directory, &big.name, &fault);
                }
                Err(_) => {}
            }
        }
        if big.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            if big.failed.load(Ordering::Relaxed) {
                if big.copying.meta.nlink > 1 {
                    self.fail_links(&big.copying.meta);
                }
            } else if let Err(fault) = self.finish_big(big) {
                self.fault(&big.directory, &big.name, &fault);
                if big.copying.meta.nlink > 1 {
                    self.fail_links(&big.copying.meta);
                }
            }
            self.done(&big.directory);
        }
    }

    fn finish_big(&self, big: &Big) -> Result<(), Fault> {
        let copying = &big.copying;
        if big.to_direct.is_some() {
            // The last page was written whole.
            set_size(copying.to.as_fd(), copying.meta.size)?;
        }
        let mut chunks = std::mem::take(&mut *lock(&big.chunks));
        chunks.sort_unstable_by_key(|chunk| chunk.index);
        let known = self.finish_file(
            &big.directory,
            copying,
            chunks,
            big.wrote.load(Ordering::Relaxed),
        )?;
        self.made(&big.directory, &big.name, &copying.meta, known);
        Ok(())
    }
}
