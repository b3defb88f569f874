//! Copies between private and shared memory, and prefetches.
//!
//! Guest memory changes while we read it. So it is only ever read by whole copies into private
//! memory (here) or by single atomic or volatile loads (in `vring`), and what was copied is what
//! is used afterwards.
#![allow(unsafe_code)]

use std::ptr;

/// Copies `bytes` bytes, fastest at up to 128 of them: no call, no loop, at most four moves of
/// the widest size that fits, the last of them overlapping the one before.
///
/// # Safety
/// `source` must be valid for reads and `target` for writes of `bytes` bytes, and the two must
/// not overlap. A guest may write to either meanwhile.
#[inline(always)]
pub unsafe fn copy(source: *const u8, target: *mut u8, bytes: usize) {
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
        65..=128 => ends!(64),
        // SAFETY: the caller vouches for exactly this copy.
        129.. => unsafe { ptr::copy_nonoverlapping(source, target, bytes) },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole_and_no_further() {
        let source: Vec<u8> = (0..400).map(|i| (i % 251) as u8 + 1).collect();
        for bytes in 0..300 {
            let mut target = vec![0; 400];
            // SAFETY: both are 400 bytes long and distinct.
            unsafe { copy(source.as_ptr(), target.as_mut_ptr(), bytes) };
            assert_eq!(target[..bytes], source[..bytes], "{bytes}");
            assert!(target[bytes..].iter().all(|byte| *byte == 0), "{bytes}");
        }
    }
}
