//! A flow table's storage in one mapping: anonymous, or a file that outlives the process. All unsafe code of the flow
//! table is here.
//!
//! Layout: label, shared words, readers, buckets, entries, links, extension records, their links, each
//! from a cache line's start. Memory of zeros is an empty table; the label's magic is written last, so a file that was never
//! finished is known by its absence.

#![allow(unsafe_code)]

#[cfg(all(target_arch = "x86_64", not(loom)))]
use std::arch::asm;
#[cfg(all(target_arch = "x86_64", not(loom)))]
use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32,
};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::entry::FlowEntry;
use super::extension::Extension;
use super::hash::KEY_WORDS;
use super::key::Family;
use super::slot::Bucket;
#[cfg(all(target_arch = "x86_64", not(loom)))]
use super::slot::OCCUPIED;
use super::storage::{Geometry, READERS, Reader, Shared, Storage};

const MAGIC: u64 = u64::from_le_bytes(*b"SLUICEFT");
/// To be raised when the meaning of any byte of the mapping changes.
const VERSION: u32 = 3;

/// What a table's file says of itself.
#[repr(C, align(64))]
struct Label {
    magic: AtomicU64,
    version: AtomicU32,
    family: AtomicU32,
    flows: AtomicU32,
    buckets: AtomicU32,
    extensions: AtomicU32,
    boot: [AtomicU64; 2],
    key: [AtomicU64; KEY_WORDS],
}

/// What a mapping holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// No finished table.
    Nothing,
    /// A table of another layout version.
    Version(u32),
    /// A table of another family (4 or 6).
    Family(u32),
    /// A table of other sizes.
    Flows(u32),
    /// A table with another number of extension records.
    Extensions(u32),
    /// A table made before the machine was last booted: its clock means nothing now.
    Boot,
    /// A table as asked for.
    Table,
}

/// Storage in a mapping.
pub struct Mapping<F: Family> {
    map: MmapRaw,
    geometry: Geometry,
    offsets: Offsets,
    /// Kept open for its lock: one owner at a time.
    _file: Option<File>,
    _family: PhantomData<F>,
}

#[derive(Clone, Copy, Debug)]
struct Offsets {
    shared: usize,
    readers: usize,
    buckets: usize,
    entries: usize,
    links: usize,
    extensions: usize,
    extension_links: usize,
    end: usize,
}

impl Offsets {
    fn new<F: Family>(geometry: Geometry) -> Self {
        let line = |offset: usize| offset.next_multiple_of(64);
        let shared = line(size_of::<Label>());
        let readers = line(shared + size_of::<Shared>());
        let buckets = line(readers + READERS * size_of::<Reader>());
        let entries = line(buckets + geometry.buckets as usize * size_of::<Bucket<8>>());
        let links = line(entries + geometry.flows as usize * size_of::<FlowEntry<F>>());
        let extensions = line(links + geometry.flows as usize * size_of::<AtomicU32>());
        let extension_links = line(extensions + geometry.extensions as usize * size_of::<Extension>());
        let end = line(extension_links + geometry.extensions as usize * size_of::<AtomicU32>());
        Self { shared, readers, buckets, entries, links, extensions, extension_links, end }
    }
}

impl<F: Family> Mapping<F> {
    /// Bytes of a table of these sizes.
    pub(super) fn size(geometry: Geometry) -> usize {
        Offsets::new::<F>(geometry).end
    }

    /// A mapping of zeros that no file backs.
    pub(super) fn anonymous(geometry: Geometry) -> io::Result<Self> {
        let map = MmapOptions::new().len(Self::size(geometry)).map_anon()?;
        Self::over(MmapRaw::from(map), geometry, None)
    }

    /// Maps a file that is at least [`Mapping::size`] long. All its memory is reserved here, so that no later access
    /// can meet a full file system.
    pub(super) fn file(file: File, geometry: Geometry) -> io::Result<Self> {
        let map = MmapOptions::new().len(Self::size(geometry)).map_raw(&file)?;
        Self::over(map, geometry, Some(file))
    }

    fn over(map: MmapRaw, geometry: Geometry, file: Option<File>) -> io::Result<Self> {
        if cfg!(loom) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "loom's atomics cannot live in a mapping"));
        }
        // Huge pages are a gain, not a need: kernels may be built or told not to have them.
        let _ = map.advise(Advice::HugePage);
        match map.advise(Advice::PopulateWrite) {
            // Kernels before 5.14 do not know it.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                if let Some(file) = &file {
                    reserve(file, map.len())?;
                }
            }
            other => other?,
        }
        let offsets = Offsets::new::<F>(geometry);
        Ok(Self { map, geometry, offsets, _file: file, _family: PhantomData })
    }

    /// What the mapping holds.
    pub(super) fn content(&self) -> Content {
        let label = self.label();
        let read = |cell: &AtomicU32| cell.load(Ordering::Relaxed);
        if label.magic.load(Ordering::Acquire) != MAGIC {
            return Content::Nothing;
        }
        if read(&label.version) != VERSION {
            return Content::Version(read(&label.version));
        }
        if read(&label.family) != F::NUMBER {
            return Content::Family(read(&label.family));
        }
        if read(&label.flows) != self.geometry.flows || read(&label.buckets) != self.geometry.buckets {
            return Content::Flows(read(&label.flows));
        }
        if read(&label.extensions) != self.geometry.extensions {
            return Content::Extensions(read(&label.extensions));
        }
        let boot = [&label.boot[0], &label.boot[1]].map(|cell| cell.load(Ordering::Relaxed));
        if boot == boot_id() { Content::Table } else { Content::Boot }
    }

    /// Makes memory of zeros an empty table with this hash key.
    pub(super) fn found(&self, key: [u64; KEY_WORDS]) {
        let label = self.label();
        label.version.store(VERSION, Ordering::Relaxed);
        label.family.store(F::NUMBER, Ordering::Relaxed);
        label.flows.store(self.geometry.flows, Ordering::Relaxed);
        label.buckets.store(self.geometry.buckets, Ordering::Relaxed);
        label.extensions.store(self.geometry.extensions, Ordering::Relaxed);
        for (cell, word) in label.boot.iter().zip(boot_id()) {
            cell.store(word, Ordering::Relaxed);
        }
        for (cell, word) in label.key.iter().zip(key) {
            cell.store(word, Ordering::Relaxed);
        }
        self.shared().epoch.0.store(1, Ordering::Relaxed);
        self.shared().entries.counts.0.free.store(self.geometry.flows, Ordering::Relaxed);
        self.shared().extensions.counts.0.free.store(self.geometry.extensions, Ordering::Relaxed);
        label.magic.store(MAGIC, Ordering::Release);
    }

    /// The hash key of the table in it.
    pub(super) fn hash_key(&self) -> [u64; KEY_WORDS] {
        let label = self.label();
        std::array::from_fn(|i| label.key[i].load(Ordering::Relaxed))
    }

    #[inline]
    fn label(&self) -> &Label {
        let base = NonNull::new(self.map.as_mut_ptr()).unwrap_or(NonNull::dangling());
        // SAFETY: as in `part`, at offset 0.
        unsafe { base.cast().as_ref() }
    }

    #[inline]
    fn part<T>(&self, offset: usize, count: usize) -> &[T] {
        debug_assert!(offset.is_multiple_of(align_of::<T>()));
        debug_assert!(offset + count * size_of::<T>() <= self.map.len());
        // SAFETY: the offset is one of `Offsets`, within the mapping.
        let start = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: `Offsets` lays `count` values of `T` from `start`, within the mapping and aligned (the mapping starts
        // on a page, offsets are multiples of 64, which is the largest alignment of the types here). The mapping lives
        // as long as `self`, is never written but through these types, and they are made of atomic integers only,
        // for which every bit pattern is valid and shared writing, also by another process, is no data race.
        unsafe { std::slice::from_raw_parts(start.cast::<T>(), count) }
    }
}

impl<F: Family> Storage<F, 8> for Mapping<F> {
    #[inline]
    fn shared(&self) -> &Shared {
        // A slice of one always has a first; the fallback cannot be reached, but costs nothing either.
        &self.part::<Shared>(self.offsets.shared, 1)[0]
    }

    #[inline]
    fn readers(&self) -> &[Reader] {
        self.part(self.offsets.readers, READERS)
    }

    #[inline]
    fn buckets(&self) -> &[Bucket<8>] {
        self.part(self.offsets.buckets, self.geometry.buckets as usize)
    }

    #[inline]
    fn entries(&self) -> &[FlowEntry<F>] {
        self.part(self.offsets.entries, self.geometry.flows as usize)
    }

    #[inline]
    fn links(&self) -> &[super::sync::AtomicU32] {
        self.part(self.offsets.links, self.geometry.flows as usize)
    }

    #[inline]
    fn extensions(&self) -> &[Extension] {
        self.part(self.offsets.extensions, self.geometry.extensions as usize)
    }

    #[inline]
    fn extension_links(&self) -> &[super::sync::AtomicU32] {
        self.part(self.offsets.extension_links, self.geometry.extensions as usize)
    }

    #[cfg(all(target_arch = "x86_64", not(loom)))]
    #[inline]
    fn matches(&self, buckets: [&Bucket<8>; 2], pattern: u64, mask: u64) -> u32 {
        // SAFETY: SSE2 is part of x86_64.
        unsafe { matches(buckets, pattern, mask) }
    }

    #[cfg(all(target_arch = "x86_64", not(loom)))]
    #[inline]
    fn survey(&self, buckets: [&Bucket<8>; 2], pattern: u64, mask: u64) -> (u32, u32) {
        // SAFETY: SSE2 is part of x86_64.
        unsafe { survey(buckets, pattern, mask) }
    }

    fn bytes(&self) -> usize {
        self.map.len()
    }
}

impl<F: Family> std::fmt::Debug for Mapping<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping").field("bytes", &self.map.len()).finish_non_exhaustive()
    }
}

/// Reserves a file's blocks.
fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; the call touches no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Draws a hash key from the kernel.
pub(super) fn random_key() -> io::Result<[u64; KEY_WORDS]> {
    let mut key = [0u64; KEY_WORDS];
    let bytes = size_of_val(&key);
    // SAFETY: `key` is `bytes` bytes of writable memory, for which every bit pattern is valid.
    let got = unsafe { libc::getrandom(key.as_mut_ptr().cast(), bytes, 0) };
    // Up to 256 bytes come whole once the pool is ready (getrandom(2)).
    if usize::try_from(got) == Ok(bytes) { Ok(key) } else { Err(io::Error::last_os_error()) }
}

/// Two words that name the machine's current boot; zeros where the kernel does not tell.
fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).unwrap_or(0);
    [id as u64, (id >> 64) as u64]
}

/// Asks for every line of a value ahead of its use: one of a bucket or an IPv4 entry, two of an IPv6 one. Its number
/// is not compared with the length: what is asked for is what nobody reads if there is no such value.
#[inline]
pub(super) fn prefetch<T>(values: &[T], number: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of::<T>().div_ceil(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let at = values.as_ptr().wrapping_add(number).cast::<i8>().wrapping_add(line * 64);
        // SAFETY: a prefetch has no effect on memory and never faults; SSE is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, number);
}

/// [`Storage::matches`] with vectors.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[target_feature(enable = "sse2")]
#[inline]
fn matches(buckets: [&Bucket<8>; 2], pattern: u64, mask: u64) -> u32 {
    equal(uppers(buckets), pattern, mask)
}

/// [`Storage::survey`] with vectors.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[target_feature(enable = "sse2")]
#[inline]
fn survey(buckets: [&Bucket<8>; 2], pattern: u64, mask: u64) -> (u32, u32) {
    let uppers = uppers(buckets);
    (equal(uppers, pattern, mask), equal(uppers, 0, OCCUPIED))
}

/// The upper halves of the slots of two buckets.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[target_feature(enable = "sse2")]
#[inline]
fn uppers([one, two]: [&Bucket<8>; 2]) -> [__m128i; 4] {
    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // Sixteen scalar loads and comparisons cost as much as the rest of a lookup. Plain vector loads would race with
    // other workers' writes, which the language does not define; for the processor they are loads of whole slots.
    // SAFETY: both buckets are 64 readable bytes, aligned to 64; nothing is written. A processor of this kind reads
    // each aligned 8 bytes of a vector at once, so every slot is read as by a relaxed atomic load.
    unsafe {
        asm!(
            "movaps {a}, xmmword ptr [{one}]",
            "shufps {a}, xmmword ptr [{one} + 16], 0xdd",
            "movaps {b}, xmmword ptr [{one} + 32]",
            "shufps {b}, xmmword ptr [{one} + 48], 0xdd",
            "movaps {c}, xmmword ptr [{two}]",
            "shufps {c}, xmmword ptr [{two} + 16], 0xdd",
            "movaps {d}, xmmword ptr [{two} + 32]",
            "shufps {d}, xmmword ptr [{two} + 48], 0xdd",
            one = in(reg) one,
            two = in(reg) two,
            a = out(xmm_reg) a,
            b = out(xmm_reg) b,
            c = out(xmm_reg) c,
            d = out(xmm_reg) d,
            options(readonly, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// A bit for each of these halves that is that of `pattern` under that of `mask`.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[target_feature(enable = "sse2")]
#[inline]
fn equal([a, b, c, d]: [__m128i; 4], pattern: u64, mask: u64) -> u32 {
    let wanted = _mm_set1_epi32(((pattern >> 32) as u32).cast_signed());
    let mask = _mm_set1_epi32(((mask >> 32) as u32).cast_signed());
    let equal = |upper| _mm_cmpeq_epi32(_mm_and_si128(upper, mask), wanted);
    let first = _mm_packs_epi32(equal(a), equal(b));
    let second = _mm_packs_epi32(equal(c), equal(d));
    _mm_movemask_epi8(_mm_packs_epi16(first, second)).cast_unsigned()
}

#[cfg(test)]
#[cfg(all(target_arch = "x86_64", not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::super::key::V4;
    use super::super::slot::{Direction, MATCH, OCCUPIED, SlotWord};
    use super::*;

    proptest! {
        #[test]
        fn vectors_see_what_scalars_see(tags: [Option<u16>; 16], wanted in prop::sample::select(vec![0, 1, 0x8000, 0xffff])) {
            let word = |tag: Option<u16>| tag.map_or(0, |tag| {
                SlotWord(0).claimed(u32::MAX, if tag % 3 == 0 { wanted } else { tag }, Direction::Reverse).0
            });
            let bucket = |offset: usize| Bucket(std::array::from_fn(|i| AtomicU64::new(word(tags[offset + i]))));
            let (one, two) = (bucket(0), bucket(8));
            let mapping = Mapping::<V4>::anonymous(Geometry::new(1, 0, 8)).unwrap();
            for (pattern, mask) in [(SlotWord::pattern(wanted), MATCH), (0, OCCUPIED)] {
                let scalar = one.matches(pattern, mask) | two.matches(pattern, mask) << 8;
                prop_assert_eq!(mapping.matches([&one, &two], pattern, mask), scalar);
                let empty = one.matches(0, OCCUPIED) | two.matches(0, OCCUPIED) << 8;
                prop_assert_eq!(mapping.survey([&one, &two], pattern, mask), (scalar, empty));
            }
        }
    }
}
