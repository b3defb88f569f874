//! One frame in DPDK's memory, owned.
//!
//! An mbuf is a buffer with a description before it; a frame longer than a buffer is a chain of
//! them, its *segments*. [`Mbuf`] owns the whole chain and gives it back to its pool when dropped.
//! It is nothing but the pointer, so a slice of them is the array that burst calls take.
//!
//! The invariant behind every `unsafe` block of this file, made by [`Mbuf::from_raw`]: the chain
//! is well formed (`next` ends with null, `data_off + data_len <= buf_len` in each segment,
//! `pkt_len` is their sum in the head) and nobody else reads or writes it. DPDK can share buffers
//! between mbufs by counting references; nothing here makes such mbufs.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys::rte_mbuf;

/// One owned frame; freed when dropped.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: the chain belongs to this value alone, and freeing is allowed from any thread.
unsafe impl Send for Mbuf {}
// SAFETY: shared references only read, and nobody writes behind them.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// Takes over an mbuf.
    ///
    /// # Safety
    /// `mbuf` is the head of a well-formed chain, as DPDK's allocation and receive calls return it;
    /// every segment has one reference and is not indirect; and the caller gives up all use of it.
    #[inline]
    pub unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        let frame = Self(mbuf);
        debug_assert_eq!(frame.head().refcnt, 1, "a shared mbuf is not a frame of ours");
        debug_assert_eq!(frame.head().ol_flags & dpdk_sys::VIADUCT_MBUF_INDIRECT, 0);
        frame
    }

    /// Gives the mbuf away, to be freed by whoever takes it.
    #[inline]
    pub fn into_raw(self) -> NonNull<rte_mbuf> {
        let mbuf = self.0;
        std::mem::forget(self);
        mbuf
    }

    /// The mbuf, still owned by this frame.
    #[inline]
    pub fn as_ptr(&self) -> *mut rte_mbuf {
        self.0.as_ptr()
    }

    /// Bytes of the whole frame.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a frame is not a collection")]
    pub fn len(&self) -> usize {
        self.head().pkt_len as usize
    }

    /// The bytes of the first segment: the headers, unless somebody made it very short.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the first segment is part of the chain; the borrow is that of the frame.
        unsafe { bytes(self.0) }
    }

    /// As [`data`](Self::data), to change.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in data, and the frame is borrowed uniquely.
        unsafe { bytes_mut(self.0) }
    }

    /// The bytes of each segment, in order.
    #[inline]
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: Some(self.0), frame: PhantomData }
    }

    /// As [`segments`](Self::segments), to change.
    #[inline]
    pub fn segments_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut next = Some(self.0);
        std::iter::from_fn(move || {
            let segment = next?;
            // SAFETY: a segment of the chain, which is borrowed uniquely; each is visited once.
            unsafe {
                next = NonNull::new((*segment.as_ptr()).next);
                Some(bytes_mut(segment))
            }
        })
    }

    /// How many segments the frame has.
    #[inline]
    pub fn segment_count(&self) -> usize {
        usize::from(self.head().nb_segs)
    }

    /// Copies bytes from `offset` on into `into`, across segments; returns how many there were.
    pub fn read(&self, mut offset: usize, into: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.segments() {
            let Some(from) = segment.get(offset..) else {
                offset -= segment.len();
                continue;
            };
            offset = 0;
            let count = from.len().min(into.len() - done);
            into[done..done + count].copy_from_slice(&from[..count]);
            done += count;
            if done == into.len() {
                break;
            }
        }
        done
    }

    /// Free bytes before the frame, into which it can grow.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.head().data_off)
    }

    /// Free bytes behind the last segment's data.
    pub fn tailroom(&self) -> usize {
        // SAFETY: the last segment is part of the chain.
        let last = unsafe { self.last().as_ref() };
        usize::from(last.buf_len) - usize::from(last.data_off) - usize::from(last.data_len)
    }

    /// Makes the frame longer by `length` bytes at its end and returns them, with whatever they
    /// held; `None` if the last segment has less room.
    #[inline]
    pub fn append(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.tailroom() {
            return None;
        }
        let mut last = self.last();
        // SAFETY: `last` is part of the chain, which is borrowed uniquely; it has the room, so the
        // lengths stay in range and the new bytes lie in its buffer.
        unsafe {
            self.head_mut().pkt_len += length as u32;
            last.as_mut().data_len += length as u16;
            let all = bytes_mut(last);
            let start = all.len() - length;
            Some(&mut all[start..])
        }
    }

    /// Makes the frame longer by `length` bytes at its beginning and returns them, with whatever
    /// they held; `None` if there is less headroom.
    #[inline]
    pub fn prepend(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.headroom() {
            return None;
        }
        let head = self.head_mut();
        head.data_off -= length as u16;
        head.data_len += length as u16;
        head.pkt_len += length as u32;
        Some(&mut self.data_mut()[..length])
    }

    /// Cuts `length` bytes off the beginning of the first segment; false, and nothing is done, if
    /// it is shorter.
    #[inline]
    pub fn adj(&mut self, length: usize) -> bool {
        if length > self.data().len() {
            return false;
        }
        let head = self.head_mut();
        head.data_off += length as u16;
        head.data_len -= length as u16;
        head.pkt_len -= length as u32;
        true
    }

    /// Puts `tail` behind this frame; gives it back if the frame would get more segments than DPDK
    /// can count.
    pub fn chain(&mut self, tail: Mbuf) -> Result<(), Mbuf> {
        let tail = tail.into_raw();
        // SAFETY: two chains that are ours alone; on success the first owns the second.
        if unsafe { dpdk_sys::rte_pktmbuf_chain(self.as_ptr(), tail.as_ptr()) } == 0 {
            return Ok(());
        }
        // SAFETY: DPDK left both as they were.
        Err(unsafe { Mbuf::from_raw(tail) })
    }

    /// The VLAN tag that the device took out of the frame, by itself or because its port was given
    /// a VLAN by the host (then a VF sees its frames untagged); `None` if it took none.
    #[inline]
    pub fn stripped_vlan(&self) -> Option<u16> {
        let head = self.head();
        let stripped = head.ol_flags & dpdk_sys::VIADUCT_MBUF_RX_VLAN_STRIPPED != 0;
        stripped.then_some(head.vlan_tci)
    }

    #[inline]
    fn head(&self) -> &rte_mbuf {
        // SAFETY: the pointer is valid and the mbuf ours as long as the frame.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn head_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as in head, and the frame is borrowed uniquely.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn last(&self) -> NonNull<rte_mbuf> {
        let mut last = self.0;
        // SAFETY: `next` of a segment is null or the next segment of the chain.
        while let Some(next) = NonNull::new(unsafe { last.as_ref().next }) {
            last = next;
        }
        last
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the chain is ours and not used after this.
        unsafe { dpdk_sys::rte_pktmbuf_free(self.as_ptr()) }
    }
}

/// Empties `frames`, giving all frames back in one call; several times cheaper than one by one.
#[inline]
pub fn free_bulk(frames: &mut Vec<Mbuf>) {
    let Ok(count) = u32::try_from(frames.len()) else { return frames.clear() };
    let array = frames.as_mut_ptr().cast::<*mut rte_mbuf>();
    // SAFETY: the vector's elements are transparent pointers to chains that it owns; with its
    // length 0 it owns them no more. The array itself stays allocated.
    unsafe {
        frames.set_len(0);
        dpdk_sys::rte_pktmbuf_free_bulk(array, count);
    }
}

/// The segments of a frame; made by [`Mbuf::segments`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    next: Option<NonNull<rte_mbuf>>,
    frame: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let segment = self.next?;
        // SAFETY: a segment of the chain, which is borrowed for 'a.
        unsafe {
            self.next = NonNull::new(segment.as_ref().next);
            Some(bytes(segment))
        }
    }
}

/// The data of one segment.
///
/// # Safety
/// `segment` is valid and its data is not written for 'a.
#[inline]
unsafe fn bytes<'a>(segment: NonNull<rte_mbuf>) -> &'a [u8] {
    // SAFETY: data_off and data_len describe bytes of the buffer (the invariant of this file), and
    // the caller keeps them alive and unwritten.
    unsafe {
        let mbuf = segment.as_ref();
        let start = mbuf.buf_addr.cast::<u8>().add(usize::from(mbuf.data_off));
        slice::from_raw_parts(start, usize::from(mbuf.data_len))
    }
}

/// The data of one segment, to change.
///
/// # Safety
/// `segment` is valid and its data is not used by others for 'a.
#[inline]
unsafe fn bytes_mut<'a>(segment: NonNull<rte_mbuf>) -> &'a mut [u8] {
    // SAFETY: as in bytes, and the caller has the data alone.
    unsafe {
        let mbuf = segment.as_ref();
        let start = mbuf.buf_addr.cast::<u8>().add(usize::from(mbuf.data_off));
        slice::from_raw_parts_mut(start, usize::from(mbuf.data_len))
    }
}

// Burst calls read an array of Mbuf as an array of pointers.
const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut rte_mbuf>());
const _: () = assert!(align_of::<Mbuf>() == align_of::<*mut rte_mbuf>());
