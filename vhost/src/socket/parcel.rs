//! A private socket between two processes of ours, by which octets go with any number of descriptors.
//!
//! A parcel is a head with two lengths, then an octet for each lump of descriptors that the kernel
//! carries at a time, then the octets themselves. Descriptors travel with octets, so lumps are read one
//! by one and none gets into another's parcel. As with [`Connection`](super::Connection), nothing here
//! waits, and whatever arrives is owned from its first moment on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::ancillary;
use crate::message::DESCRIPTORS_MAX;

/// Octets that a parcel may have: a bound on memory, far above any.
const OCTETS_MAX: usize = 256 << 20;

/// Descriptors that a parcel may have: more than a guest can have.
const RIGHTS_MAX: usize = 1024;

/// Octets of a parcel's head.
const HEAD: usize = 8;

/// What goes at a time.
#[derive(Debug, Default)]
pub struct Parcel {
    /// Octets, whose meaning is the ends' to know.
    pub octets: Vec<u8>,
    /// Descriptors that go with them.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of the socket. See the [module's head](self).
#[derive(Debug)]
pub struct Parcels {
    stream: UnixStream,
    /// What is to be sent, in pieces that the kernel takes at a time.
    outgoing: VecDeque<Parcel>,
    /// What was received of a head.
    head: Vec<u8>,
    /// How many octets and descriptors a parcel has whose head is there, and what came of it.
    incoming: Option<(usize, usize, Parcel)>,
}

/// Why an end is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ParcelError {
    /// The other end is gone.
    #[error("the other process closed the connection")]
    Closed,
    /// What came is no parcel.
    #[error("a message of {octets} octets and {descriptors} descriptors is none of ours")]
    Strange {
        /// What its head says.
        octets: usize,
        /// The same.
        descriptors: usize,
    },
    /// The kernel could not hand over all descriptors.
    #[error(
        "file descriptors were lost: this process has reached its limit of open files (ulimit -n)"
    )]
    DescriptorsLost,
    /// The kernel's answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Parcels {
    /// Two ends: one for this process, and one to give to another.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::new(ours)?, theirs.into()))
    }

    /// Takes over an end. Anything but a stream socket fails when it is used.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, outgoing: VecDeque::new(), head: Vec::new(), incoming: None })
    }

    /// Puts a parcel in line. [`flush`](Self::flush) sends it.
    pub fn post(&mut self, parcel: Parcel) {
        let Parcel { octets, descriptors } = parcel;
        let [octets_len, descriptors_len] =
            [octets.len(), descriptors.len()].map(|length| (length as u32).to_ne_bytes());
        let head = [octets_len, descriptors_len].concat();
        self.outgoing.push_back(Parcel { octets: head, descriptors: Vec::new() });
        let mut descriptors = descriptors.into_iter();
        loop {
            let lump: Vec<_> = descriptors.by_ref().take(DESCRIPTORS_MAX).collect();
            if lump.is_empty() {
                break;
            }
            self.outgoing.push_back(Parcel { octets: vec![0], descriptors: lump });
        }
        self.outgoing.push_back(Parcel { octets, descriptors: Vec::new() });
    }

    /// Sends what is in line, as far as there is room. Returns whether all of it is sent.
    pub fn flush(&mut self) -> Result<bool, ParcelError> {
        while let Some(piece) = self.outgoing.front_mut() {
            if piece.octets.is_empty() {
                self.outgoing.pop_front();
                continue;
            }
            match ancillary::send(self.stream.as_fd(), &piece.octets, &piece.descriptors) {
                Ok(sent) => {
                    // The descriptors went with the first octet.
                    piece.descriptors.clear();
                    piece.octets.drain(..sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if is_end(&error) => return Err(ParcelError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The next parcel, if all of it is there. After an error this end is to be dropped.
    pub fn try_receive(&mut self) -> Result<Option<Parcel>, ParcelError> {
        loop {
            let Some((octets, descriptors, parcel)) = &mut self.incoming else {
                if !self.read_head()? {
                    return Ok(None);
                }
                continue;
            };
            let missing = *descriptors - parcel.descriptors.len();
            if missing > 0 {
                let lump = missing.min(DESCRIPTORS_MAX);
                let Some(came) = read(&self.stream, 1)? else { return Ok(None) };
                if came.descriptors.len() != lump {
                    return Err(ParcelError::DescriptorsLost);
                }
                parcel.descriptors.extend(came.descriptors);
                continue;
            }
            let missing = *octets - parcel.octets.len();
            if missing == 0 {
                return Ok(self.incoming.take().map(|(_, _, parcel)| parcel));
            }
            let Some(came) = read(&self.stream, missing.min(1 << 16))? else {
                return Ok(None);
            };
            parcel.octets.extend(came.octets);
        }
    }

    /// Reads on in a head. Returns whether all of it is there.
    fn read_head(&mut self) -> Result<bool, ParcelError> {
        let Some(came) = read(&self.stream, HEAD - self.head.len())? else {
            return Ok(false);
        };
        self.head.extend(came.octets);
        let &[a, b, c, d, e, f, g, h] = &self.head[..] else { return Ok(true) };
        self.head.clear();
        let [octets, descriptors] = [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes);
        let (octets, descriptors) = (octets as usize, descriptors as usize);
        if octets > OCTETS_MAX || descriptors > RIGHTS_MAX {
            return Err(ParcelError::Strange { octets, descriptors });
        }
        self.incoming = Some((octets, descriptors, Parcel::default()));
        Ok(true)
    }
}

/// Reads some octets, `most` or fewer, with what descriptors belong to them; none if none are there.
fn read(stream: &UnixStream, most: usize) -> Result<Option<Parcel>, ParcelError> {
    let mut octets = vec![0; most];
    match ancillary::receive(stream.as_fd(), &mut octets) {
        Ok(received) if received.truncated => Err(ParcelError::DescriptorsLost),
        Ok(received) if received.bytes == 0 => Err(ParcelError::Closed),
        Ok(received) => {
            octets.truncate(received.bytes);
            Ok(Some(Parcel { octets, descriptors: received.descriptors }))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if is_end(&error) => Err(ParcelError::Closed),
        Err(error) => Err(error.into()),
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsFd for Parcels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    fn ends() -> (Parcels, Parcels) {
        let (ours, theirs) = Parcels::pair().unwrap();
        (ours, Parcels::new(theirs.into()).unwrap())
    }

    /// Sends and receives by turns, as each may have to wait for the other.
    fn carry(from: &mut Parcels, to: &mut Parcels, parcels: Vec<Parcel>) -> Vec<Parcel> {
        let count = parcels.len();
        parcels.into_iter().for_each(|parcel| from.post(parcel));
        let mut came = Vec::new();
        while came.len() < count {
            from.flush().unwrap();
            came.extend(to.try_receive().unwrap());
        }
        assert!(from.flush().unwrap());
        assert!(to.try_receive().unwrap().is_none());
        came
    }

    fn file(number: usize) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        write!(file, "{number}").unwrap();
        file.into()
    }

    #[test]
    fn parcels_arrive_whole_with_their_own_descriptors() {
        let (mut ours, mut theirs) = ends();
        let sizes = [(0, 0), (1, 0), (0, 1), (3, 2), (3 << 20, 150), (5, 64), (7, 65)];
        let parcel = |&(octets, descriptors): &(usize, usize)| Parcel {
            octets: (0..octets).map(|at| at as u8).collect(),
            descriptors: (0..descriptors).map(file).collect(),
        };
        let came = carry(&mut ours, &mut theirs, sizes.iter().map(parcel).collect());
        for (&(octets, descriptors), came) in sizes.iter().zip(came) {
            assert_eq!((came.octets.len(), came.descriptors.len()), (octets, descriptors));
            assert!(came.octets.iter().enumerate().all(|(at, octet)| at as u8 == *octet));
            for (number, descriptor) in came.descriptors.into_iter().enumerate() {
                let (mut file, mut text) = (File::from(descriptor), String::new());
                file.rewind().unwrap();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, number.to_string());
            }
        }
    }

    #[test]
    fn nonsense_and_the_end_are_told_apart() {
        let (mut ours, theirs) = Parcels::pair().unwrap();
        let mut theirs = UnixStream::from(theirs);
        theirs.write_all(&[255; 8]).unwrap();
        assert!(matches!(ours.try_receive(), Err(ParcelError::Strange { .. })));
        drop(theirs);
        let (mut ours, theirs) = ends();
        drop(theirs);
        assert!(matches!(ours.try_receive(), Err(ParcelError::Closed)));
        ours.post(Parcel { octets: vec![1], descriptors: Vec::new() });
        assert!(matches!(ours.flush(), Err(ParcelError::Closed)));
    }
}
