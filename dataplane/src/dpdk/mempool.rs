//! Memory pools of mbufs: where frames live.
//!
//! A pool has a fixed number of frame buffers of a fixed size. Handles are shared; devices hold one
//! for as long as they may fill buffers. Taking and returning frames is safe from any thread.
//!
//! Frames do not count references to their pool, that would be an atomic operation for each. So the
//! pool must see to it that its memory outlives them: when the last handle is dropped, the pool
//! *retires*, and its memory is freed when every frame is back and no registered thread can be
//! inside the pool any more. DPDK counts a frame as returned a moment before the returning thread
//! has finished writing to its cache in the pool; threads that are not registered have no cache.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::{rte_mbuf, rte_mempool};
use parking_lot::Mutex;

use super::error::PoolError;
use super::{Eal, Mbuf, errno_name, log, thread};

/// A shared handle on a memory pool.
#[derive(Clone, Debug)]
pub struct Mempool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    pool: RawPool,
    name: String,
    frames: u32,
    data_room: u16,
}

/// The pool in DPDK.
#[derive(Clone, Copy, Debug)]
struct RawPool(NonNull<rte_mempool>);

// SAFETY: a pool's operations are safe from any thread: its ring is multi-producer and
// multi-consumer (DPDK's default, `ring_mp_mc`), its caches belong to one registered thread each.
unsafe impl Send for RawPool {}
// SAFETY: as above.
unsafe impl Sync for RawPool {}

/// Pools without handles whose memory cannot be freed yet.
static RETIRED: Mutex<Vec<(RawPool, u32)>> = Mutex::new(Vec::new());

/// Frames that a registered thread may keep in its cache. Larger would leave the L1 cache with the
/// frames' first lines, smaller goes to the shared ring more often.
const CACHE: u32 = 256;

impl Mempool {
    /// Bytes of frame data in a buffer that suit MTU 1500 with any tags; what drivers like best.
    pub const DATA_ROOM: u16 = 2048;

    /// Frames that a thread's cache holds at most: DPDK empties it at one and a half times its size.
    pub const CACHED_MAX: u32 = CACHE + CACHE / 2;

    /// Makes a pool of `frames` buffers, each with `data_room` bytes for frame data (the headroom,
    /// in which headers can grow, comes on top).
    ///
    /// `socket` is the NUMA node whose memory is taken, `None` any. DPDK's memory is used best when
    /// `frames` is a power of two less one. A device needs at least as many frames as its receive
    /// descriptors; each worker may keep 256 more in its cache.
    ///
    /// # Errors
    /// The name is in use or too long, a number is out of range, or DPDK has too little memory.
    pub fn create(
        _eal: &Eal,
        name: &str,
        frames: u32,
        data_room: u16,
        socket: Option<u32>,
    ) -> Result<Self, PoolError> {
        free_retired();
        let c_name = check(name, frames, data_room)
            .map_err(|reason| PoolError::Argument { name: name.to_owned(), reason })?;
        // A cache may hold half as much again before it is flushed; small pools would be drained
        // by a single one.
        let cache = if frames >= 8 * CACHE { CACHE } else { 0 };
        let node = socket.map_or(-1, |node| i32::try_from(node).unwrap_or(-1));

        let (pool, said) = log::listen(|| {
            // SAFETY: EAL runs; the name is a C string that DPDK copies; DPDK checks the numbers.
            NonNull::new(unsafe {
                let room = data_room + dpdk_sys::VIADUCT_HEADROOM;
                dpdk_sys::rte_pktmbuf_pool_create(c_name.as_ptr(), frames, cache, 0, room, node)
            })
            // SAFETY: reads a thread-local of this thread.
            .ok_or_else(|| unsafe { dpdk_sys::viaduct_errno() })
        });
        match pool {
            Ok(pool) => {
                let (pool, name) = (RawPool(pool), name.to_owned());
                Ok(Self(Arc::new(Pool { pool, name, frames, data_room })))
            }
            Err(errno) => {
                let remedy = remedy(errno, frames, data_room);
                let (name, reason) = (name.to_owned(), errno_name(errno));
                Err(PoolError::Create { name, frames, reason, said, remedy })
            }
        }
    }

    /// Takes one empty frame; `None` when the pool is empty.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is alive as long as this handle.
        let mbuf = NonNull::new(unsafe { dpdk_sys::rte_pktmbuf_alloc(self.as_ptr()) })?;
        // SAFETY: the frame was just taken from its pool: it is ours alone, reset and empty.
        Some(unsafe { Mbuf::from_raw(mbuf) })
    }

    /// Takes `count` empty frames and appends them to `frames`; all or, when the pool has fewer,
    /// none (`false`). Give `frames` the capacity beforehand to keep this free of allocation.
    #[inline]
    pub fn alloc_bulk(&self, frames: &mut Vec<Mbuf>, count: usize) -> bool {
        frames.reserve(count);
        let Ok(wanted) = u32::try_from(count) else { return false };
        // SAFETY: the vector has room for `count` pointers behind its length, and Mbuf is a
        // transparent pointer to an mbuf. DPDK writes all of them or none.
        unsafe {
            let free = frames.as_mut_ptr().add(frames.len()).cast::<*mut rte_mbuf>();
            if dpdk_sys::rte_pktmbuf_alloc_bulk(self.as_ptr(), free, wanted) != 0 {
                return false;
            }
            frames.set_len(frames.len() + count);
        }
        true
    }

    /// Takes a frame of `length` bytes, in as many segments as that needs. What it holds is left
    /// from earlier frames: write all of it, by [`Mbuf::segments_mut`], before it is sent.
    ///
    /// `None` when the pool has too few buffers, or the frame would need too many.
    pub fn alloc_frame(&self, length: usize) -> Option<Mbuf> {
        let room = usize::from(self.0.data_room);
        let mut frame = self.alloc()?;
        frame.append(length.min(room))?;
        let mut rest = length.saturating_sub(room);
        while rest > 0 {
            let mut segment = self.alloc()?;
            segment.append(rest.min(room))?;
            frame.chain(segment).ok()?;
            rest = rest.saturating_sub(room);
        }
        Some(frame)
    }

    /// A copy of `frame` in this pool; `None` when the pool has too few buffers.
    pub fn copy_of(&self, frame: &Mbuf) -> Option<Mbuf> {
        // SAFETY: both are alive; DPDK reads the frame (the pointer is const in C) and returns a
        // chain of its own.
        let copy =
            unsafe { dpdk_sys::rte_pktmbuf_copy(frame.as_ptr(), self.as_ptr(), 0, u32::MAX) };
        // SAFETY: a chain that DPDK just took from the pool and that nobody else knows.
        NonNull::new(copy).map(|mbuf| unsafe { Mbuf::from_raw(mbuf) })
    }

    /// Frames that are in the pool now, caches included. Exact while no thread uses the pool.
    pub fn available(&self) -> u32 {
        self.0.pool.available()
    }

    /// Frames that the pool was made for.
    pub fn capacity(&self) -> u32 {
        self.0.frames
    }

    /// Bytes of frame data that one buffer holds.
    pub fn data_room(&self) -> u16 {
        self.0.data_room
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether both are handles on one pool.
    pub fn is(&self, other: &Mempool) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn as_ptr(&self) -> *mut rte_mempool {
        self.0.pool.0.as_ptr()
    }
}

impl RawPool {
    fn available(self) -> u32 {
        // SAFETY: a pool is freed only in free_retired, and its last user is gone by then.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.0.as_ptr()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let out = self.frames - self.pool.available();
        if out > 0 {
            tracing::warn!(
                pool = self.name,
                "{out} of {} frames are still out; the pool's memory is kept until they are back",
                self.frames
            );
        }
        RETIRED.lock().push((self.pool, self.frames));
        free_retired();
    }
}

/// Frees the retired pools that nobody can touch any more.
pub(super) fn free_retired() {
    let Some(_alone) = thread::alone() else { return };
    RETIRED.lock().retain(|&(pool, frames)| {
        let home = pool.available() == frames;
        if home {
            // SAFETY: no handle is left, so no frame can be taken, and all are back. A frame is
            // counted as back at the last write to the pool by a thread that is not registered;
            // and no registered thread but this one, which is here, can be in the pool.
            unsafe { dpdk_sys::rte_mempool_free(pool.0.as_ptr()) };
        }
        !home
    });
}

/// What DPDK would refuse or, worse, silently cut.
fn check(name: &str, frames: u32, data_room: u16) -> Result<CString, String> {
    // DPDK puts "MP_" before it when it names the pool's ring.
    let longest = dpdk_sys::VIADUCT_MEMPOOL_NAME_SIZE as usize - 1;
    if name.is_empty() || name.len() > longest {
        return Err(format!("its name must have 1 to {longest} bytes"));
    }
    if frames == 0 {
        return Err("0 frames are too few".to_owned());
    }
    let most = u16::MAX - dpdk_sys::VIADUCT_HEADROOM;
    if !(64..=most).contains(&data_room) {
        return Err(format!("{data_room} bytes of data room are out of range, 64 to {most} fit"));
    }
    CString::new(name).map_err(|_| "its name has a zero byte inside".to_owned())
}

fn remedy(errno: i32, frames: u32, data_room: u16) -> String {
    match errno {
        libc::ENOMEM | libc::ENOBUFS => format!(
            "it needs about {} MiB: raise dpdk.memory_mib or use fewer frames",
            (u64::from(frames) * (u64::from(data_room) + 400)).div_ceil(1 << 20)
        ),
        libc::EEXIST => "a pool of that name exists: choose another".to_owned(),
        libc::EINVAL | libc::ENOENT => {
            "see that Debian's package librte-mempool-ring23 is installed".to_owned()
        }
        _ => "the log, target `dpdk`, has the details".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_before_dpdk_sees_them() {
        for (name, frames, room, word) in [
            ("", 1, 2048, "name"),
            ("a-name-that-is-longer-than-dpdk-keeps", 1, 2048, "name"),
            ("a\0b", 1, 2048, "zero byte"),
            ("p", 0, 2048, "frames"),
            ("p", 1, 10, "data room"),
            ("p", 1, u16::MAX, "data room"),
        ] {
            let reason = check(name, frames, room).expect_err(name);
            assert!(reason.contains(word), "{reason}");
        }
        assert!(check("uplink", 1, Mempool::DATA_ROOM).is_ok());
        assert_eq!(remedy(libc::ENOMEM, 1 << 20, 2048).matches("2448 MiB").count(), 1);
    }
}
