//! Numbers compared with another one, all at once.
//!
//! Written with the processor's instructions, as a compiler makes of the obvious loop a sum over
//! lanes or a count of bits, which takes three times as many.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _mm_castsi128_ps, _mm_cmpeq_epi16, _mm_cmpgt_epi16, _mm_cmpgt_epi32, _mm_loadu_si128,
    _mm_movemask_epi8, _mm_movemask_ps, _mm_packs_epi16, _mm_set1_epi16, _mm_set1_epi32,
    _mm_setzero_si128,
};

use vhost::BURST_MAX;

/// The place of the first of the ascending `numbers` that is above `sought`; 8 if none is.
#[inline(always)]
pub(crate) fn first_above(numbers: &[i16; 8], sought: i16) -> usize {
    // SAFETY: SSE2 is part of every x86-64 processor, and the array has the 16 bytes that are read.
    let bits = unsafe {
        let numbers = _mm_loadu_si128(numbers.as_ptr().cast());
        let above = _mm_cmpgt_epi16(numbers, _mm_set1_epi16(sought));
        _mm_movemask_epi8(_mm_packs_epi16(above, _mm_setzero_si128()))
    };
    (bits | 1 << 8).trailing_zeros() as usize
}

/// Which of the `numbers` are greater than `sought`, a bit for each by its place. All are numbers with a sign.
#[inline(always)]
pub(crate) fn greater(numbers: &[u32; 4], sought: u32) -> usize {
    // SAFETY: SSE2 is part of every x86-64 processor, and the array has the 16 bytes that are read.
    let bits = unsafe {
        let numbers = _mm_loadu_si128(numbers.as_ptr().cast());
        let greater = _mm_cmpgt_epi32(numbers, _mm_set1_epi32(sought as i32));
        _mm_movemask_ps(_mm_castsi128_ps(greater))
    };
    bits as usize
}

/// Which of the `numbers` are the one that is sought, a bit for each by its place.
#[inline(always)]
pub(crate) fn equal(numbers: &[u16; BURST_MAX], sought: u16) -> u64 {
    let (chunks, _) = numbers.as_chunks::<16>();
    let mut bits = 0;
    for (at, chunk) in chunks.iter().enumerate() {
        // SAFETY: SSE2 is part of every x86-64 processor, and the chunk has the 32 bytes that are read.
        let found = unsafe {
            let chunk: *const __m128i = chunk.as_ptr().cast();
            let sought = _mm_set1_epi16(sought as i16);
            let low = _mm_cmpeq_epi16(_mm_loadu_si128(chunk), sought);
            let high = _mm_cmpeq_epi16(_mm_loadu_si128(chunk.add(1)), sought);
            _mm_movemask_epi8(_mm_packs_epi16(low, high))
        };
        bits |= u64::from(found as u16) << (16 * at);
    }
    bits
}

/// The `bits` shifted by one, and behind them that of `word` at this place, counted from the lowest, modulo
/// 64.
#[inline(always)]
pub(crate) fn push_bit(bits: u64, word: u64, at: u16) -> u64 {
    let mut pushed = bits;
    // SAFETY: both instructions read and write nothing but these registers, and the flags.
    unsafe {
        std::arch::asm!(
            "bt {word}, {at}",
            "adc {bits}, {bits}",
            word = in(reg) word,
            at = in(reg) u64::from(at),
            bits = inout(reg) pushed,
            options(pure, nomem, nostack)
        );
    }
    pushed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_pushed_from_its_place() {
        let word = 1 << 63 | 0b10;
        let pushed = |at| push_bit(0b101, word, at);
        assert_eq!([0, 1, 2, 62, 63, 64, 65].map(pushed), [10, 11, 10, 10, 11, 10, 11]);
        assert_eq!(push_bit(1 << 63, 1, 0), 1);
    }

    #[test]
    fn those_that_are_greater_are_told_by_their_place() {
        let numbers = [5, -5, i32::MAX, i32::MIN];
        for (sought, expected) in [
            (4, 0b0101),
            (5, 0b0100),
            (-5, 0b0101),
            (-6, 0b0111),
            (i32::MAX, 0),
            (i32::MIN, 0b0111),
        ] {
            let numbers = numbers.map(|number: i32| number as u32);
            assert_eq!(greater(&numbers, sought as u32), expected, "{sought}");
        }
    }

    #[test]
    fn those_that_are_equal_are_told_by_their_place() {
        let mut numbers = [7; 64];
        for (place, number) in [(0, 0), (15, u16::MAX), (16, 0x8000), (63, u16::MAX)] {
            numbers[place] = number;
        }
        for sought in [0, 7, 8, 0x8000, u16::MAX] {
            let expected = numbers
                .iter()
                .rev()
                .fold(0, |bits, number| bits << 1 | u64::from(*number == sought));
            assert_eq!(equal(&numbers, sought), expected, "{sought}");
        }
    }

    #[test]
    fn the_first_above_is_found_at_every_place() {
        let narrow = [i16::MIN, -300, -1, 0, 1, 2, 300, i16::MAX];
        for sought in i16::MIN..=i16::MAX {
            let expected = narrow.partition_point(|number| *number <= sought);
            assert_eq!(first_above(&narrow, sought), expected, "{sought}");
        }
    }
}
