//! Frames as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark and tcpdump read.
//!
//! Each port is an interface, described when its first frame comes. A frame's flags say whether it came
//! from the port or went there; of a dropped one a comment says why.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::time::Duration;

use control::show::view::{EndView, Event, FrameView, PortRef, Side};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};

use super::arguments::CaptureArguments;
use super::failure::Failure;
use super::watch::Sink;
use crate::render;

/// The unit of time stamps: nanoseconds (option `if_tsresol`).
const NANOSECONDS: u8 = 9;

/// Directions (option `epb_flags`).
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Octets that are collected before they are written, unless there is a pause.
const BUFFER: usize = 256 << 10;

/// See the [module's head](self).
pub(super) struct Pcapng<'a> {
    writer: PcapNgWriter<BufWriter<&'a mut dyn Write>>,
    snaplen: u32,
    filter: &'a str,
    interfaces: BTreeMap<PortRef, Interface>,
    /// Of the last frame, in nanoseconds since 1970.
    last: u64,
}

#[derive(Clone, Copy)]
struct Interface {
    number: u32,
    frames: u64,
}

impl<'a> Pcapng<'a> {
    /// Begins a file.
    pub(super) fn begin(
        out: &'a mut dyn Write,
        arguments: &'a CaptureArguments,
    ) -> Result<Self, Failure> {
        let program = concat!("viaduct ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let out = BufWriter::with_capacity(BUFFER, out);
        let writer = PcapNgWriter::with_section_header(out, section).map_err(failed)?;
        let (interfaces, last) = (BTreeMap::new(), 0);
        Ok(Self { writer, snaplen: arguments.snaplen, filter: &arguments.filter, interfaces, last })
    }

    fn interface(&mut self, port: &PortRef) -> Result<&mut Interface, Failure> {
        if !self.interfaces.contains_key(port) {
            let mut options = vec![
                InterfaceDescriptionOption::IfName(render::port_name(port).into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            if !self.filter.is_empty() {
                // The first octet says that a text follows.
                let text = [&[0], self.filter.as_bytes()].concat();
                options.push(InterfaceDescriptionOption::IfFilter(text.into()));
            }
            let (linktype, snaplen) = (DataLink::ETHERNET, self.snaplen);
            let block = InterfaceDescriptionBlock { linktype, snaplen, options };
            self.writer.write_pcapng_block(block).map_err(failed)?;
        }
        let number = self.interfaces.len() as u32;
        Ok(self.interfaces.entry(port.clone()).or_insert(Interface { number, frames: 0 }))
    }

    fn frame(&mut self, view: &FrameView, octets: &[u8]) -> Result<(), Failure> {
        let interface = self.interface(&view.port)?;
        interface.frames += 1;
        let interface_id = interface.number;
        let flags = match view.side {
            Side::Ingress => INBOUND,
            Side::Egress => OUTBOUND,
        };
        let mut options = vec![EnhancedPacketOption::Flags(flags)];
        if let Some(comment) = comment(view) {
            options.push(EnhancedPacketOption::Comment(comment.into()));
        }
        self.last = view.unix_nanoseconds;
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(view.unix_nanoseconds),
            original_len: view.octets,
            data: Cow::Borrowed(octets),
            options,
        };
        self.writer.write_pcapng_block(block).map(drop).map_err(failed)
    }

    /// Writes how many frames each interface has given, and how many were lost.
    fn end(&mut self, end: &EndView) -> Result<(), Failure> {
        for lost in &end.lost {
            self.interface(&lost.port)?;
        }
        // As the blocks have it: the upper half first.
        let timestamp = self.last.rotate_left(32);
        for (port, interface) in &self.interfaces {
            let lost = end.lost.iter().filter(|lost| lost.port == *port).map(|lost| lost.frames);
            let options = vec![
                InterfaceStatisticsOption::IsbIfDrop(lost.sum()),
                InterfaceStatisticsOption::IsbUsrDeliv(interface.frames),
            ];
            let interface_id = interface.number;
            let block = InterfaceStatisticsBlock { interface_id, timestamp, options };
            self.writer.write_pcapng_block(block).map_err(failed)?;
        }
        Ok(())
    }
}

impl Sink for Pcapng<'_> {
    fn take(&mut self, event: &Event, octets: &[u8]) -> Result<(), Failure> {
        match event {
            Event::Frame(view) => self.frame(view, octets),
            Event::End(end) => self.end(end),
            Event::Course(_) => Ok(()),
        }
    }

    fn pause(&mut self) -> Result<(), Failure> {
        Ok(self.writer.get_mut().flush()?)
    }
}

/// Why a frame was dropped, if it was.
fn comment(view: &FrameView) -> Option<String> {
    let reason = view.reason.as_ref()?;
    let help = view.help.as_deref().unwrap_or_default();
    let from = match view.side {
        Side::Ingress => String::new(),
        Side::Egress => format!(" It came from {}.", render::port_name(&view.from)),
    };
    Some(format!("dropped, {reason}: {help}{from}"))
}

fn failed(error: PcapError) -> Failure {
    match error {
        PcapError::IoError(error) => error.into(),
        other => Failure::Failed(format!("writing pcapng: {other}")),
    }
}
