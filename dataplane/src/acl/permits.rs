//! Whether rules permit a port, without which rule says so: all that has to be known of most frames.
//!
//! A bit for each port, in blocks of 1024 ports; a map names 64 blocks. Equal blocks are one block, however
//! many maps name them, and equal maps are one map. So a look-up reads three places, whatever the rules
//! are: the line of a class of addresses, its map, and the word with the bit. Each of them names the next
//! by its place, so that nothing has to be multiplied.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::hash::Hash;

use super::Line;
use super::addresses::NoRoom;
use super::known;
use super::ranges::{LEVELS, MapBuilder, Root, Verdict, WIDTH};
use crate::lanes::push_bit;
use crate::packet::Plane;

/// Words of a block.
const WORDS: usize = 16;

/// Blocks of a map.
const BLOCKS: usize = 64;

/// Blocks that a part below a map's root makes.
const BLOCKS_OF_PART: usize = BLOCKS / WIDTH;

/// Words of a part of such a part.
const WORDS_OF_CHILD: usize = BLOCKS_OF_PART * WORDS / WIDTH;

/// See the [module's head](self).
#[derive(Debug)]
pub(super) struct Permits {
    /// Where the maps of each class begin: of TCP's destination ports, of its source ports for what answers,
    /// and both of UDP. Behind the last stand as many more as there are planes, so that for any plane of any
    /// class a place is read. Memory for it begins at a multiple of 16 bytes, as any does that is allocated, so
    /// those of a class are in one cache line.
    lines: Box<[u32]>,
    /// By 1024 ports, how far it is from the place of a port's word among those of all ports to its place in
    /// a block, modulo 2^32.
    maps: Box<[u32]>,
    /// By 64 ports, a bit for each.
    blocks: Box<[u64]>,
}

/// Maps of a class.
const MAPS: usize = 4;

// Those are the first planes.
const _: () = assert!(Plane::Tcp as usize == 0 && Plane::Udp as usize == 2);

/// See [`Permits::view`].
#[derive(Clone, Copy)]
pub(super) struct PermitsView<'a> {
    lines: &'a [u32],
    maps: &'a [u32],
    blocks: &'a [u64],
}

impl Permits {
    /// The most lines that a look-up reads: the class's, and of both of its maps a line and a word.
    pub const LINES_READ: usize = 5;

    /// What is permitted by the maps of these lines, one for each class, which are `builder`'s.
    pub fn new(builder: &MapBuilder, lines: &[Line], bytes_max: usize) -> Result<Self, NoRoom> {
        let (by_root, by_part, painted) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (maps, blocks) = (Pieces::default(), Pieces::default());
        // Places are numbers of 32 bits.
        let bytes_max = bytes_max.min(1 << 32);
        let mut drawing = Drawing { builder, bytes_max, by_root, by_part, painted, maps, blocks };
        let mut drawn = Vec::with_capacity(lines.len() * MAPS + Plane::COUNT);
        for Line(roots) in lines {
            for root in &roots[..MAPS] {
                drawn.push(drawing.map(*root)?);
            }
        }
        drawn.extend([0; Plane::COUNT]);
        let Drawing { maps: Pieces { all: maps, .. }, blocks: Pieces { all: blocks, .. }, .. } =
            drawing;
        // What `ClassPermits::word` relies on.
        assert!(drawn.iter().all(|map| *map as usize + BLOCKS <= maps.len()), "whole maps");
        let (whole, _) = maps.as_chunks::<BLOCKS>();
        let mut ways = whole.iter().flat_map(|map| map.iter().enumerate());
        let leads =
            |(block, way): (usize, &u32)| word_at(*way, block * WORDS) + WORDS <= blocks.len();
        assert!(ways.all(leads), "whole blocks");
        Ok(Self { lines: drawn.into(), maps: maps.into(), blocks: blocks.into() })
    }

    /// The tables, with all their places at hand.
    #[inline(always)]
    pub fn view(&self) -> PermitsView<'_> {
        PermitsView { lines: &self.lines, maps: &self.maps, blocks: &self.blocks }
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.maps) + size_of_val(&*self.blocks)
    }
}

/// What is permitted with a class of addresses.
#[derive(Clone, Copy)]
pub(super) struct ClassPermits<'a> {
    class: u32,
    permits: PermitsView<'a>,
}

impl<'a> PermitsView<'a> {
    /// What is permitted with a class.
    ///
    /// # Safety
    /// There must be such a class.
    #[inline(always)]
    pub unsafe fn class(self, class: u32) -> ClassPermits<'a> {
        ClassPermits { class, permits: self }
    }
}

impl ClassPermits<'_> {
    /// Whether a destination port of TCP or UDP is permitted, as a bit behind those that are there.
    /// Of packets that are of neither the answer has no meaning.
    #[inline(always)]
    pub fn permit(&self, bits: u64, plane: Plane, port: u16) -> u64 {
        push_bit(bits, self.word(plane as usize, port), port)
    }

    /// Whether a source port is permitted to what answers.
    #[inline(always)]
    pub fn permit_answer(&self, plane: Plane, port: u16) -> bool {
        self.word(plane as usize + 1, port) >> (port % 64) & 1 == 1
    }

    /// The word with a port's bit.
    #[inline(always)]
    fn word(&self, plane: usize, port: u16) -> u64 {
        // SAFETY: there is such a class, and `Permits::new` has put places behind it for all planes. It has
        // seen that behind where a class's map begins there are all of its blocks' numbers, and that these
        // lead to words with any port of the block.
        unsafe {
            let map = *known::at(self.permits.lines, self.class as usize * MAPS + plane) as usize;
            let way = *known::at(self.permits.maps, map + usize::from(port >> 10));
            *known::at(self.permits.blocks, word_at(way, usize::from(port >> 6)))
        }
    }
}

/// Where a word is, by what its map says and by its place among the words of all ports.
#[inline(always)]
fn word_at(way: u32, word: usize) -> usize {
    way.wrapping_add(word as u32) as usize
}

/// Permits that are being made.
struct Drawing<'a> {
    builder: &'a MapBuilder,
    /// Memory that maps and blocks may take.
    bytes_max: usize,
    by_root: HashMap<Root, u32>,
    by_part: HashMap<Root, [u32; BLOCKS_OF_PART]>,
    /// The bits of each part below these.
    painted: HashMap<Root, [u64; WORDS_OF_CHILD]>,
    maps: Pieces<u32, BLOCKS>,
    blocks: Pieces<u64, WORDS>,
}

/// Pieces of which no two are equal, one behind the other.
#[derive(Default)]
struct Pieces<T, const LEN: usize> {
    all: Vec<T>,
    known: HashMap<[T; LEN], u32>,
}

impl<T: Copy + Eq + Hash, const LEN: usize> Pieces<T, LEN> {
    /// Where a piece begins.
    fn place(&mut self, piece: [T; LEN]) -> u32 {
        *self.known.entry(piece).or_insert_with(|| {
            self.all.extend(piece);
            (self.all.len() - LEN) as u32
        })
    }
}

impl Drawing<'_> {
    /// Where the map of a root begins.
    fn map(&mut self, root: Root) -> Result<u32, NoRoom> {
        if let Some(known) = self.by_root.get(&root) {
            return Ok(*known);
        }
        if size_of_val(&*self.maps.all) + size_of_val(&*self.blocks.all) > self.bytes_max {
            return Err(NoRoom);
        }
        let mut map = [0; BLOCKS];
        let (parts, _) = map.as_chunks_mut::<BLOCKS_OF_PART>();
        for (place, part) in parts.iter_mut().zip(self.builder.below(root)) {
            *place = self.part(part);
        }
        for (block, place) in map.iter_mut().enumerate() {
            *place = place.wrapping_sub((block * WORDS) as u32);
        }
        let place = self.maps.place(map);
        self.by_root.insert(root, place);
        Ok(place)
    }

    /// Where the blocks of a part below a root begin.
    fn part(&mut self, part: Root) -> [u32; BLOCKS_OF_PART] {
        if let Some(known) = self.by_part.get(&part) {
            return *known;
        }
        let mut words = [0; BLOCKS_OF_PART * WORDS];
        let (children, _) = words.as_chunks_mut::<WORDS_OF_CHILD>();
        for (place, child) in children.iter_mut().zip(self.builder.below(part)) {
            *place = *self.painted.entry(child).or_insert_with(|| paint(self.builder, child));
        }
        let mut blocks = [0; BLOCKS_OF_PART];
        for (place, words) in blocks.iter_mut().zip(words.as_chunks::<WORDS>().0) {
            *place = self.blocks.place(*words);
        }
        self.by_part.insert(part, blocks);
        blocks
    }
}

/// The bits that a part permits which has two levels.
fn paint(builder: &MapBuilder, part: Root) -> [u64; WORDS_OF_CHILD] {
    let mut words = [0; WORDS_OF_CHILD];
    let ports = builder.below(part).into_iter().flat_map(|row| builder.below(row));
    for (at, verdict) in ports.enumerate() {
        words[at / 64] |= u64::from(Verdict::of(verdict).permits()) << (at % 64);
    }
    words
}

// The levels are those of a map, a part, a part of it, and the two that are painted.
const _: () = assert!(LEVELS == 4);
