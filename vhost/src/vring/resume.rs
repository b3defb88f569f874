//! What becomes of the burst over which an earlier back-end died.
//!
//! A burst's frames are copied into their receivers' buffers and shown to them before the sender's
//! chains are given back, since its buffers may be written again from then on. A back-end that is
//! killed in between has delivered frames, some or all, that the sender's ring still has as
//! waiting: whoever goes on with the ring would deliver them twice. So each burst that is taken
//! is marked in the ring's own memory, in a place that drivers do not read, by where it begins and
//! how many chains it has. That is one store into a line which is about to be written anyway.
//!
//! Who starts a ring and finds such a mark where the ring stands gives these chains back and
//! delivers nothing of them. So nothing comes twice, no descriptor is lost, and what was not yet
//! delivered of that one burst is lost, as frames may be. vhost-user's own answer, the front-end's
//! record of chains in flight (`GET_INFLIGHT_FD`), would say no more to a back-end that completes
//! in order, and front-ends of network devices do not offer it.
//!
//! A guest that forges a mark loses frames of its own.

use super::chain::NEXT;
use super::layout::Layout;

/// Gives back the chains that are marked, if any are. The driver is interrupted when the ring
/// starts in any case.
pub(super) fn give_back_marked<L: Layout>(layout: &mut L) {
    let chains = layout.marked();
    // A guest that lies about its ring is caught when that is read for its frames.
    let found = if chains > 0 { layout.scout(0, chains, 0).unwrap_or(0) } else { 0 };
    let mut room = layout.size();
    for _ in 0..found {
        let place = layout.next();
        let Ok(Some(head)) = layout.scouted(place) else { break };
        let (mut last, mut descriptors) = (head.first, 1);
        while L::POSITIONAL && last.flags & NEXT != 0 && descriptors < room {
            let Ok(next) = layout.linked(place, descriptors, last) else { break };
            last = next;
            descriptors += 1;
        }
        if descriptors > room {
            break;
        }
        room -= descriptors;
        layout.take(L::chain(head, last, descriptors));
    }
    layout.complete();
    layout.publish();
}
