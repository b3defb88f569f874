//! Copies between private and shared memory, and how lines of it are had in time.
//!
//! Guest memory changes while we read it. So it is only ever read by whole copies into private
//! memory (here) or by single atomic or volatile loads (in `vring`), and what was copied is what
//! is used afterwards.
#![allow(unsafe_code)]

use std::ptr;

/// Copies `bytes` bytes.
///
/// # Safety
/// `source` must be valid for reads and `target` for writes of `bytes` bytes, and the two must
/// not overlap. A guest may write to either meanwhile.
#[inline(always)]
pub unsafe fn copy(source: *const u8, target: *mut u8, bytes: usize) {
    match bytes {
        // SAFETY: the caller vouches for exactly this copy.
        0..=SHORT_MAX => unsafe { copy_short(source, target, bytes) },
        // SAFETY: as above, and the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        ..=wide::MOST if wide::is_possible() => unsafe { wide::copy(source, target, bytes) },
        // SAFETY: as above.
        _ => unsafe { ptr::copy_nonoverlapping(source, target, bytes) },
    }
}

/// The most bytes that [`copy_short`] copies.
pub const SHORT_MAX: usize = 128;

/// Copies `bytes` bytes, [`SHORT_MAX`] at most: no call, no loop, at most four moves of
/// the widest size that fits, the last of them overlapping the one before.
///
/// # Safety
/// As of [`copy`]. Of more than [`SHORT_MAX`] bytes, those in the middle are not written.
#[inline(always)]
pub unsafe fn copy_short(source: *const u8, target: *mut u8, bytes: usize) {
    debug_assert!(bytes <= SHORT_MAX, "the ends of more do not meet");
    macro_rules! ends {
        ($width:literal) => {{
            let last = bytes - $width;
            // SAFETY: `bytes >= $width`, so both moves stay within the `bytes` bytes that the
            // caller vouches for; arrays of bytes need no alignment.
            unsafe {
                ptr::copy_nonoverlapping(source.cast::<[u8; $width]>(), target.cast(), 1);
                ptr::copy_nonoverlapping(
                    source.add(last).cast::<[u8; $width]>(),
                    target.add(last).cast(),
                    1,
                );
            }
        }};
    }
    match bytes {
        // The shortest frames, of which there are the most.
        // SAFETY: as above, for exactly these bytes.
        64 => unsafe {
            ptr::copy_nonoverlapping(source.cast::<[u8; 64]>(), target.cast(), 1);
        },
        65.. => ends!(64),
        32..64 => ends!(32),
        16..32 => ends!(16),
        8..16 => ends!(8),
        4..8 => ends!(4),
        _ => {
            for at in 0..bytes {
                // SAFETY: `at < bytes`.
                unsafe { target.add(at).write(source.add(at).read()) };
            }
        }
    }
}

/// Bodies by whole lines, where the processor can.
///
/// The C library's `memcpy` moves the ends of a few hundred bytes so that they overlap in the middle, and
/// with stores that span two lines. Here each byte is stored once, and with a target that begins a line,
/// as most bodies' do, each line by one store: of those that wait for their lines, more fit the processor.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_storeu_si512,
    };

    use super::LINE_BYTES;

    /// For more bytes than these the C library knows better ways.
    pub(super) const MOST: usize = 2048;

    /// Processors with VBMI2 have AVX-512 without running slower for it.
    #[inline(always)]
    pub(super) fn is_possible() -> bool {
        is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi2")
    }

    /// # Safety
    /// As of [`super::copy`]; and [`is_possible`] has said so.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn copy(source: *const u8, target: *mut u8, bytes: usize) {
        let last = bytes / LINE_BYTES * LINE_BYTES;
        // SAFETY: each line is within the `bytes` bytes that the caller vouches for. Of the last one, as
        // of the bytes behind it, only those are touched whose bit is set in the mask.
        unsafe {
            for at in (0..last).step_by(LINE_BYTES) {
                let line = _mm512_loadu_si512(source.add(at).cast());
                _mm512_storeu_si512(target.add(at).cast(), line);
            }
            let mask = (1_u64 << (bytes - last)) - 1;
            let rest = _mm512_maskz_loadu_epi8(mask, source.wrapping_add(last).cast());
            _mm512_mask_storeu_epi8(target.wrapping_add(last).cast(), mask, rest);
        }
    }
}

/// Asks for the line at `address` to be read soon. Any address is harmless.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches no memory as the program sees it and faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for the line at `address` to be ours alone soon, to be written. Any address is harmless.
///
/// Stores become visible in order, so one that has to wait for its line holds up all behind it.
#[inline(always)]
pub fn prefetch_to_write(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches no memory as the program sees it and faults at no address; where
    // a processor does not know this one, it does nothing.
    unsafe {
        std::arch::asm!(
            "prefetchw [{address}]",
            address = in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Has the first two lines of the `bytes` bytes at `target` brought over, by a store to each: their values
/// are lost.
///
/// Stores become visible in order, so one whose line another core has holds up all behind it; but
/// processors ask for the lines of all stores that wait. So many lines are had soonest by a store to each,
/// right behind each other, before any of them is filled: some sixty are on their way at once then, where
/// stores that fill them wait for a few. (`prefetchw` gives less of that where the cores share a
/// cache, and hardly anything where they do not.)
///
/// # Safety
/// `target` must be valid for writes of `bytes` bytes, one at least. A guest may write there meanwhile.
#[inline(always)]
pub unsafe fn claim(target: *mut u8, bytes: usize) {
    let second = LINE_BYTES - target as usize % LINE_BYTES;
    // SAFETY: the caller vouches for the first byte, and for that of the second line if it is among them.
    unsafe {
        target.write_volatile(0);
        if second < bytes {
            target.add(second).write_volatile(0);
        }
    }
}

const LINE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole_and_no_further() {
        let source: Vec<u8> = (0..2300).map(|i| (i % 251) as u8 + 1).collect();
        for bytes in (0..300).chain(1500..1600).chain(2000..2200) {
            let mut target = vec![0; 2300];
            // SAFETY: both are 2300 bytes long and distinct.
            unsafe { copy(source.as_ptr(), target.as_mut_ptr(), bytes) };
            assert_eq!(target[..bytes], source[..bytes], "{bytes}");
            assert!(target[bytes..].iter().all(|byte| *byte == 0), "{bytes}");
        }
    }

    #[test]
    fn two_lines_are_claimed_and_nothing_behind_the_end() {
        #[repr(align(64))]
        struct Lines([u8; 256]);
        for (start, bytes) in
            [(0, 1), (0, 64), (0, 65), (12, 52), (12, 53), (63, 1), (63, 2), (5, 200)]
        {
            let mut lines = Lines([7; 256]);
            // SAFETY: within the array.
            unsafe { claim(lines.0.as_mut_ptr().add(start), bytes) };
            let written: Vec<_> = (0..256).filter(|at| lines.0[*at] == 0).collect();
            let second = (start / 64 + 1) * 64;
            let expected = if second < start + bytes { vec![start, second] } else { vec![start] };
            assert_eq!(written, expected, "{bytes} from {start}");
        }
    }
}
