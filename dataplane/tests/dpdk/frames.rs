//! Pools and mbufs: bytes in, bytes out, and every buffer back in the end.

use std::thread;

use dataplane::dpdk::{EalError, Mbuf, Mempool, PoolError, free_bulk};

use crate::{bytes, eal, frame, numbered};

#[test]
fn a_frame_grows_shrinks_and_goes_home() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "grow", 63, 2048, None).expect("a pool");
    assert_eq!((pool.capacity(), pool.available(), pool.data_room()), (63, 63, 2048));

    let mut one = frame(&pool, b"middle");
    assert_eq!(pool.available(), 62);
    assert_eq!((one.len(), one.headroom(), one.tailroom()), (6, 128, 2042));
    one.append(4).expect("room behind").copy_from_slice(b" end");
    one.prepend(6).expect("room before").copy_from_slice(b"begin ");
    assert_eq!(bytes(&one), b"begin middle end");
    assert!(one.adj(6));
    one.data_mut()[0] = b'M';
    assert_eq!(one.data(), b"Middle end");

    assert!(!one.adj(11), "more than there is");
    assert!(one.prepend(129).is_none(), "more than the headroom");
    assert!(one.append(2039).is_none(), "more than the tailroom");
    assert_eq!(bytes(&one), b"Middle end", "what is refused changes nothing");
    assert_eq!(one.stripped_vlan(), None);

    let raw = one.into_raw();
    assert_eq!(pool.available(), 62);
    // SAFETY: it was given away a line above, by a frame that owned it.
    drop(unsafe { Mbuf::from_raw(raw) });
    assert_eq!(pool.available(), 63);
}

#[test]
fn a_frame_of_many_segments_reads_as_one() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "segments", 63, 512, None).expect("a pool");
    let pattern: Vec<u8> = (0..2000_u32).map(|i| (i * 7 % 251) as u8).collect();

    let mut long = pool.alloc_frame(2000).expect("four buffers");
    assert_eq!((long.len(), long.segment_count(), pool.available()), (2000, 4, 59));
    let mut rest = &pattern[..];
    for segment in long.segments_mut() {
        let (now, later) = rest.split_at(segment.len());
        segment.copy_from_slice(now);
        rest = later;
    }
    assert!(rest.is_empty());
    assert_eq!(bytes(&long), pattern);

    for (offset, count) in [(0, 128), (500, 20), (511, 1), (512, 512), (1990, 10), (0, 2000)] {
        let mut part = vec![0; count];
        assert_eq!(long.read(offset, &mut part), count);
        assert_eq!(part, pattern[offset..offset + count]);
    }
    let mut part = [0; 20];
    assert_eq!(long.read(1990, &mut part), 10, "only what is there");
    assert_eq!(long.read(2000, &mut part), 0);
    assert_eq!(long.read(9999, &mut part), 0);

    let copy = pool.copy_of(&long).expect("four more");
    assert_eq!((bytes(&copy), pool.available()), (pattern.clone(), 55));
    assert!(copy.data().as_ptr() != long.data().as_ptr());

    long.chain(frame(&pool, b"tail")).expect("few segments");
    assert_eq!((long.len(), long.segment_count()), (2004, 5));
    assert_eq!(bytes(&long)[2000..], *b"tail");

    assert!(pool.alloc_frame(60 * 512).is_none(), "more than the pool has");
    assert_eq!(pool.available(), 54, "and what was taken is back");
    drop((long, copy));
    assert_eq!(pool.available(), 63);
}

#[test]
fn tags_go_in_and_out_behind_the_addresses() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "tags", 63, 2048, None).expect("a pool");
    let plain = numbered(7);
    let mut one = frame(&pool, &plain);

    assert!(one.push_vlan(0x8100, 0x6064));
    let tagged = [&plain[..12], &[0x81, 0x00, 0x60, 0x64], &plain[12..]].concat();
    assert_eq!(bytes(&one), tagged);
    assert!(one.push_vlan(0x88a8, 5));
    assert_eq!(bytes(&one)[12..20], [0x88, 0xa8, 0, 5, 0x81, 0x00, 0x60, 0x64]);
    assert_eq!(one.pop_vlan(), Some(5));
    assert_eq!(one.pop_vlan(), Some(0x6064));
    assert_eq!(bytes(&one), plain);
    assert_eq!((one.pop_vlan(), bytes(&one)), (None, plain), "no tag, no change");

    let mut short = frame(&pool, &[0; 11]);
    assert!(!short.push_vlan(0x8100, 1));
    assert_eq!((short.pop_vlan(), short.len()), (None, 11));
    while one.push_vlan(0x8100, 1) {}
    assert_eq!((one.headroom(), one.len()), (0, 60 + 128), "it stops when the headroom is used");
}

#[test]
fn an_empty_pool_gives_none() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "empty", 31, 2048, None).expect("a pool");
    let mut frames = Vec::with_capacity(64);
    assert!(!pool.alloc_bulk(&mut frames, 32), "more than there are");
    assert_eq!((frames.len(), pool.available()), (0, 31), "all or none");
    assert!(pool.alloc_bulk(&mut frames, 30));
    frames.push(pool.alloc().expect("the last"));
    assert!(pool.alloc().is_none());
    assert!(pool.alloc_frame(1).is_none());
    assert!(pool.copy_of(&frames[0]).is_none());
    free_bulk(&mut frames);
    assert_eq!((frames.len(), frames.capacity(), pool.available()), (0, 64, 31));
    free_bulk(&mut frames);
}

#[test]
fn frames_may_be_freed_by_another_registered_thread() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "threads", 4095, 128, None).expect("a pool");
    let (eal, theirs) = (turn.eal, pool.clone());
    let worker = thread::spawn(move || {
        let registered = eal.register_thread().expect("a free place");
        assert!(matches!(eal.register_thread(), Err(EalError::Thread(_))), "not twice");
        let mut frames = Vec::with_capacity(64);
        for _ in 0..1000 {
            assert!(theirs.alloc_bulk(&mut frames, 64));
            free_bulk(&mut frames);
        }
        assert!(theirs.alloc_bulk(&mut frames, 32));
        drop(registered);
        let registered = eal.register_thread().expect("again, after it was given up");
        drop(registered);
        frames
    });
    let frames = worker.join().expect("the worker ends well");
    assert_eq!(pool.available(), 4095 - 32, "those in the dead thread's cache are counted");
    drop(frames);
    assert_eq!(pool.available(), 4095);
}

#[test]
fn a_pool_outlives_its_frames() {
    let turn = eal();
    let create = || Mempool::create(&turn.eal, "outlived", 63, 2048, None);
    let pool = create().expect("a pool");
    match create() {
        Err(PoolError::Create { remedy, .. }) => assert!(remedy.contains("exists"), "{remedy}"),
        other => panic!("two pools of one name: {other:?}"),
    }

    let mut late = frame(&pool, b"late");
    drop(pool);
    late.data_mut().copy_from_slice(b"LATE");
    assert_eq!(late.data(), b"LATE", "the frame is usable after the last handle is gone");
    assert!(create().is_err(), "its pool is not freed");
    drop(late);
    let pool = create().expect("freed with its last frame, the name is free");

    // While a thread is registered it could be about to finish giving back a frame.
    let eal = turn.eal;
    let (kept, freed) = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let registered = eal.register_thread().expect("a free place");
            let other = scope.spawn(|| drop(pool));
            other.join().expect("the pool is dropped by a thread that is not registered");
            let kept = scope.spawn(|| create().is_err()).join().expect("create does not panic");
            drop(registered);
            (kept, create().is_ok())
        });
        worker.join().expect("the worker ends well")
    });
    assert!(kept, "not freed while a thread is registered");
    assert!(freed, "freed with the last registration");
}

#[test]
fn too_little_memory_is_told_with_the_need() {
    let turn = eal();
    match Mempool::create(&turn.eal, "huge", 1 << 20, 2048, None) {
        Err(error @ PoolError::Create { .. }) => {
            let text = error.to_string();
            assert!(text.contains("`huge` of 1048576 frames"), "{text}");
            assert!(text.contains("2448 MiB"), "{text}");
        }
        other => panic!("128 MiB held a pool of 2 GiB: {other:?}"),
    }
}
