//! Content, read back from the storage.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pvmigrate_record::order::{Attribute, Level};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::OFlags;

use super::entry::Both;
use super::storage::{File, Reader};
use super::{Comparison, Directory, Item, digest};
use crate::chunks::{CHUNK, Chunk};
use crate::fault::Fault;
use crate::lock::lock;
use crate::manifest::Unproven;
use crate::meta::Meta;
use crate::pair::Sides;
use crate::quiet::open_quietly;
use crate::stretches::Stretches;

/// The length of a part of a big file, in bytes.
pub const PART: u64 = 8 * CHUNK;
/// How much more data than the source a file of the destination may have before it counts as
/// filled in, in bytes: per stretch of data, because file systems round in different steps.
const SLACK: u64 = 64 * 1024;
/// The same for all that is allocated, which a file system may do ahead of need.
const ALLOCATED_SLACK: u64 = 1024 * 1024;

/// A file whose content is being compared.
pub struct Reading {
    directory: Directory,
    name: CString,
    both: Both,
    /// Read too where nothing is known of it, or all is to be read.
    source: Option<File>,
    destination: File,
    /// What is read.
    parts: Vec<Range<u64>>,
    next: AtomicUsize,
    /// Parts that are not done.
    left: AtomicUsize,
    failed: AtomicBool,
    /// What was found, of the source and of the destination.
    found: Mutex<(Vec<Chunk>, Vec<Chunk>)>,
}

impl Comparison<'_> {
    /// Compares the contents of two files of one size. Big ones are divided among the threads.
    pub(super) fn content(
        &self,
        directory: &Directory,
        sides: &Sides,
        name: &CStr,
        both: Both,
        reader: &mut Reader<'_>,
    ) -> Result<(), Fault> {
        let (size, full) = (both.source.size, self.with.level == Level::Full);
        if size != both.destination.size {
            // Said already.
            return Ok(());
        }
        self.holes(sides, name, &both)?;
        let unproven = match &both.known {
            Some(known) if !full => known.unproven(),
            _ => Unproven::Everything,
        };
        let parts: Vec<_> = match &unproven {
            Unproven::Nothing => Vec::new(),
            _ if size == 0 => Vec::new(),
            Unproven::Chunks(chunks) => chunks
                .iter()
                .map(|index| index * CHUNK..((index + 1) * CHUNK).min(size))
                .filter(|part| part.start < part.end)
                .collect(),
            Unproven::Everything => (0..size.div_ceil(PART))
                .map(|index| index * PART..((index + 1) * PART).min(size))
                .collect(),
        };
        let expected: &[Chunk] = both.known.as_ref().map_or(&[], |known| &known.chunks);
        if parts.is_empty() {
            self.conclude(directory, name, &both, (expected, expected));
            return Ok(());
        }
        let source = if full || both.known.is_none() {
            Some(File::open(sides.source(), name, size).map_err(Fault::source("open it"))?)
        } else {
            None
        };
        let reading = Reading {
            directory: Arc::clone(directory),
            name: name.to_owned(),
            source,
            destination: File::open(sides.destination(), name, size)
                .map_err(Fault::destination("open it"))?,
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(parts.len()),
            parts,
            failed: AtomicBool::new(false),
            found: Mutex::default(),
            both,
        };
        directory.begin();
        if reading.parts.len() == 1 {
            reader.ahead.push(Arc::new(reading));
        } else {
            self.pool.push(Item::Part(Arc::new(reading)));
        }
        Ok(())
    }

    /// Reads the files of a batch, all of which the storage was asked for.
    pub(super) fn read_ahead(&self, reader: &mut Reader<'_>) {
        for reading in std::mem::take(&mut reader.ahead) {
            self.part(&reading, reader);
        }
    }

    /// Reads the next part of a file; the last one concludes.
    pub(super) fn part(&self, reading: &Arc<Reading>, reader: &mut Reader<'_>) {
        let index = reading.next.fetch_add(1, Ordering::Relaxed);
        if index + 1 < reading.parts.len() {
            self.pool.push(Item::Part(Arc::clone(reading)));
        }
        if !reading.failed.load(Ordering::Relaxed)
            && let Err(fault) = self.read(reading, reading.parts[index].clone(), reader)
            && !reading.failed.swap(true, Ordering::Relaxed)
        {
            self.fault(&reading.directory, &reading.name, &fault);
        }
        if reading.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            if !reading.failed.load(Ordering::Relaxed) {
                self.conclude_reading(reading);
            }
            self.done(&reading.directory);
        }
    }

    fn read(
        &self,
        reading: &Reading,
        part: Range<u64>,
        reader: &mut Reader<'_>,
    ) -> Result<(), Fault> {
        let both = &reading.both;
        let mut source = match &reading.source {
            Some(file) => reader
                .chunks(
                    file.input(both.source.size),
                    both.source.allocated,
                    part.clone(),
                )
                .map_err(Fault::source("read it"))?,
            None => Vec::new(),
        };
        reader.read = 0;
        let mut destination = reader
            .chunks(
                reading.destination.input(both.destination.size),
                both.destination.allocated,
                part,
            )
            .map_err(Fault::destination("read it back"))?;
        self.read.fetch_add(reader.read, Ordering::Relaxed);
        self.ledger().bytes(reader.read);
        let mut found = lock(&reading.found);
        found.0.append(&mut source);
        found.1.append(&mut destination);
        Ok(())
    }

    fn conclude_reading(&self, reading: &Reading) {
        let both = &reading.both;
        let (mut source, mut destination) = std::mem::take(&mut *lock(&reading.found));
        if let (Some(known), None) = (&both.known, &reading.source) {
            source = known.chunks.to_vec();
            let was_read = |chunk: &Chunk| {
                let at = chunk.index * CHUNK;
                let before = reading.parts.partition_point(|part| part.end <= at);
                reading
                    .parts
                    .get(before)
                    .is_some_and(|part| part.start <= at)
            };
            // What was read back in an earlier pass, and not written since.
            destination.extend(source.iter().filter(|chunk| !was_read(chunk)));
        }
        source.sort_unstable_by_key(|chunk| chunk.index);
        destination.sort_unstable_by_key(|chunk| chunk.index);
        self.conclude(
            &reading.directory,
            &reading.name,
            both,
            (&source, &destination),
        );
    }

    /// Everything of an entry is known: it is compared, counted, and added to the digests.
    pub(super) fn conclude(
        &self,
        directory: &Directory,
        name: &CStr,
        both: &Both,
        (source, destination): (&[Chunk], &[Chunk]),
    ) {
        let known = &directory.own.known;
        let known = known.find(both.source.id.2, both.destination.id.2);
        if source == destination {
            if self.with.level >= Level::Written
                && let Some(known) = known
            {
                known.prove();
            }
        } else {
            let differ = source.iter().find(|chunk| !destination.contains(chunk));
            let differ = differ.or_else(|| destination.iter().find(|c| !source.contains(c)));
            let at = differ.map_or(0, |chunk| chunk.index * CHUNK);
            let difference = format!("content differs after byte {at}");
            self.ledger().error(&directory.path_of(name), difference);
            if let Some(known) = known {
                known.refute();
            }
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
        let digest = |meta: &Meta, seal, chunks| {
            digest::of_entry(&directory.own.path, name, meta, seal, chunks, self.ledger())
        };
        let of_source = digest(&both.source, &both.seals.0, source);
        let of_destination = digest(&both.destination, &both.seals.1, destination);
        let mut digests = lock(&self.digests);
        digests.0.add(&of_source);
        digests.1.add(&of_destination);
    }

    /// Whether the destination has data where the source has holes.
    fn holes(&self, sides: &Sides, name: &CStr, both: &Both) -> Result<(), Fault> {
        let (a, b) = (&both.source, &both.destination);
        if b.allocated <= a.allocated + SLACK || self.ledger().loses(Attribute::Holes) {
            return Ok(());
        }
        let from =
            open_quietly(sides.source(), name, OFlags::RDONLY).map_err(Fault::source("open it"))?;
        let to = open_quietly(sides.destination(), name, OFlags::RDONLY)
            .map_err(Fault::destination("open it"))?;
        let (source, stretches) =
            data(from.as_fd(), a.size).map_err(Fault::source("find its data"))?;
        let (destination, _) =
            data(to.as_fd(), b.size).map_err(Fault::destination("find its data"))?;
        let most = source.max(a.allocated);
        if destination > most + SLACK * (stretches + 1) || b.allocated > 2 * most + ALLOCATED_SLACK
        {
            return Err(Fault::Refused("holes are filled in".into()));
        }
        Ok(())
    }
}

/// How many bytes of a file are data, and in how many stretches.
fn data(file: BorrowedFd<'_>, size: u64) -> Result<(u64, u64), rustix::io::Errno> {
    let mut stretches = Stretches::new(file, 0..size);
    let mut found = (0, 0);
    while let Some(data) = stretches.next()? {
        found.0 += data.end - data.start;
        found.1 += 1;
    }
    Ok(found)
}
