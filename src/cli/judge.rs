//! `viaduct explain` and `viaduct test-frame`: what passes a port, and what would become of a frame.

use std::io::Write;

use control::frame::Sketch;
use control::show::view::PortRef;
use control::show::{Answer, AskError, Query, ask};

use super::arguments::{Explain, ExplainArguments, TestFrameArguments};
use super::failure::Failure;
use super::show::{ASKED, Daemon, Page};
use super::{block_on, place};
use crate::render;

/// Explains what may enter and leave a port.
pub fn explain(arguments: &ExplainArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let daemon = Daemon { socket: place::socket(&arguments.daemon)? };
    let Explain::Port { port } = &arguments.what;
    let port = match daemon.port(port)? {
        PortRef::Port { uuid, .. } => uuid,
        PortRef::Uplink { physnet } => {
            return Err(Failure::Failed(format!(
                "{physnet} is an uplink: all frames of its networks pass it"
            )));
        }
    };
    let Answer::Explain(view) = daemon.ask(Query::Explain { port })? else {
        unreachable!("{ASKED}")
    };
    Page { json: arguments.json, out }.print(&view, |view| render::explain(view))
}

/// Asks the daemon what would become of a frame. Fails if it is dropped.
pub fn test_frame(arguments: &TestFrameArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let frame = arguments.frame.join(" ");
    let understood = frame.parse::<Sketch>();
    understood.map_err(|misfit| Failure::Wrong(format!("the frame: {misfit}")))?;
    let daemon = Daemon { socket: place::socket(&arguments.daemon)? };
    let port = |wanted: &Option<String>| -> Result<_, Failure> {
        wanted.as_ref().map(|wanted| daemon.port(wanted)).transpose()
    };
    let (from, to) = (port(&arguments.port)?, port(&arguments.to_port)?);
    let view = match block_on(ask(&daemon.socket, &Query::Trial { from, to, frame }))? {
        Ok(Answer::Trial(view)) => view,
        Ok(_) => unreachable!("{ASKED}"),
        // The frame lacks something that only the switch could know.
        Err(AskError::Refused(why)) => return Err(Failure::Wrong(why)),
        Err(error) => return Err(error.into()),
    };
    Page { json: arguments.json, out }.print(&view, |view| render::trial(view))?;
    if view.passes { Ok(()) } else { Err(Failure::Told) }
}
