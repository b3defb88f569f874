//! `viaduct show vhost`: sessions with guests, one a line, or all of one.

use control::show::view::{PortRef, RingLayoutView, SocketModeView, VhostState, VhostView};

use super::labels::Labels;
use super::table::{Table, plain};
use super::units::{bytes, count, memory};

/// Sessions, one a line.
pub fn vhost(views: &[VhostView], wide: bool) -> String {
    let labels = Labels::new(wide, views.iter().map(|view| &view.port), []);
    let columns =
        ["PORT", "MODE", "STATE", ">SESSIONS", ">RINGS", ">MTU", ">MEMORY", "SOCKET", "REASON"];
    let mut table = Table::new(&columns, "there are no vhost-user ports");
    for view in views {
        let running = view.rings.iter().filter(|ring| ring.state == "running").count();
        let before = view.last_error.as_ref().map(|error| format!("last session: {error}"));
        table.row([
            labels.port(&view.port),
            mode(view.mode).to_owned(),
            state(view.state).to_owned(),
            count(view.sessions),
            format!("{running}/{}", view.rings.len()),
            view.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            memory_of(view),
            view.socket.display().to_string(),
            view.reason.clone().or(before).unwrap_or_default(),
        ]);
    }
    table.text()
}

/// All of one session.
pub fn vhost_session(view: &VhostView) -> String {
    let name = match &view.port {
        PortRef::Port { uuid, name: Some(name) } => format!("{name}, {uuid}"),
        PortRef::Port { uuid, name: None } => uuid.to_string(),
        PortRef::Uplink { physnet } => physnet.to_string(),
    };
    let by = match view.mode {
        SocketModeView::Client => "client: the guest's VMM makes the socket",
        SocketModeView::Server => "server: the switch makes the socket",
    };
    let features = match &view.features {
        Some(features) => features.join(" "),
        None => "not negotiated yet".to_owned(),
    };
    let regions: Vec<String> = view
        .memory
        .iter()
        .map(|region| format!("{} at {:#x}", memory(region.bytes), region.guest_address))
        .collect();
    let lines = [
        ("port", name),
        ("socket", view.socket.display().to_string()),
        ("mode", by.to_owned()),
        ("state", state(view.state).to_owned()),
        ("reason", view.reason.clone().unwrap_or_default()),
        ("sessions", view.sessions.to_string()),
        ("last error", view.last_error.clone().unwrap_or_default()),
        ("refused", view.refusal.clone().unwrap_or_default()),
        ("features", features),
        ("protocol", view.protocol_features.join(" ")),
        ("driver", driver_status(view.driver_status)),
        ("mtu", view.mtu.map(|mtu| mtu.to_string()).unwrap_or_default()),
        ("memory", regions.join(", ")),
    ];
    let lines = lines.map(|(subject, text)| {
        let text = if text.is_empty() { "-".to_owned() } else { plain(&text) };
        format!("{subject:<12}{text}\n")
    });
    format!("{}\n{}", lines.concat(), rings(view))
}

fn rings(view: &VhostView) -> String {
    let columns = [
        ">RING",
        "GUEST",
        "LAYOUT",
        ">SIZE",
        ">AVAIL",
        ">USED",
        ">FRAMES",
        ">BYTES",
        ">FULL",
        ">TOO-BIG",
        ">DISCARDED",
        ">KICKS",
        "ENABLED",
        "STATE",
    ];
    let mut table = Table::new(&columns, "there are no rings yet");
    for ring in &view.rings {
        table.row([
            ring.queue.to_string(),
            // virtio 1.2 §5.1.2: receiveqs have even numbers, transmitqs odd ones.
            if ring.queue % 2 == 0 { "receives".to_owned() } else { "sends".to_owned() },
            ring.layout.map(layout).unwrap_or_default().to_owned(),
            ring.size.map(|size| size.to_string()).unwrap_or_default(),
            ring.next_available.to_string(),
            ring.next_used.map(|used| used.to_string()).unwrap_or_default(),
            count(ring.frames),
            bytes(ring.bytes),
            count(ring.full),
            count(ring.too_big),
            count(ring.discarded),
            count(ring.kicks),
            if ring.enabled { "yes".to_owned() } else { "no".to_owned() },
            ring.state.clone(),
        ]);
    }
    table.text()
}

fn memory_of(view: &VhostView) -> String {
    let octets = view.memory.iter().map(|region| region.bytes);
    match octets.fold(0, u64::saturating_add) {
        0 => String::new(),
        octets => memory(octets),
    }
}

fn layout(layout: RingLayoutView) -> &'static str {
    match layout {
        RingLayoutView::Split => "split",
        RingLayoutView::Packed => "packed",
    }
}

fn mode(mode: SocketModeView) -> &'static str {
    match mode {
        SocketModeView::Client => "client",
        SocketModeView::Server => "server",
    }
}

fn state(state: VhostState) -> &'static str {
    match state {
        VhostState::Early => "early",
        VhostState::Unconnected => "unconnected",
        VhostState::Connected => "connected",
        VhostState::Ready => "ready",
    }
}

/// The device status by the names of its bits (virtio 1.2 §2.1).
fn driver_status(status: u8) -> String {
    const BITS: [(u8, &str); 6] = [
        (1, "ACKNOWLEDGE"),
        (2, "DRIVER"),
        (8, "FEATURES_OK"),
        (4, "DRIVER_OK"),
        (64, "DEVICE_NEEDS_RESET"),
        (128, "FAILED"),
    ];
    let names: Vec<&str> =
        BITS.into_iter().filter(|(bit, _)| status & bit != 0).map(|(_, name)| name).collect();
    if names.is_empty() {
        format!("{status:#04x}")
    } else {
        format!("{status:#04x} {}", names.join(" "))
    }
}
