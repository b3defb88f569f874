//! Mirrors, from desired state to the plan, and how they are shown.

use dataplane::watch::{Mirror, Mirrors};

use super::Switch;
use crate::frame::FrameFilter;
use crate::model::{Direction, Port};
use crate::show::view::MirrorView;

impl Switch {
    /// The mirrors of ports that exist, to ports that exist and are up.
    pub(super) fn mirrors(&self) -> Mirrors {
        let mut mirrors = Mirrors::default();
        for (uuid, port) in &self.desired.ports {
            let Some(mirror) = &port.mirror else { continue };
            let listens = self.desired.ports.get(&mirror.to).is_some_and(|to| to.admin_up);
            let (Some(&id), Some(&to)) =
                (self.attached.ports.get(uuid), self.attached.ports.get(&mirror.to))
            else {
                continue;
            };
            if listens {
                let filter = mirror.filter.as_ref().map(FrameFilter::filter).cloned();
                let (received, sent) =
                    (mirror.has(Direction::Egress), mirror.has(Direction::Ingress));
                let filter = filter.unwrap_or_default();
                mirrors.set(id, Mirror { to, received, sent, filter });
            }
        }
        mirrors
    }

    /// A port's mirror, as it is shown.
    pub(super) fn mirror_view(&self, port: &Port) -> Option<MirrorView> {
        let mirror = port.mirror.as_ref()?;
        let missing = match self.desired.ports.get(&mirror.to) {
            None => Some("the port that it leads to is not there"),
            Some(to) if !to.admin_up => Some("the port that it leads to is down"),
            Some(to) if !to.is_switched() => {
                Some("the port that it leads to is a VF, which the switch sends nothing")
            }
            Some(_) if !self.attached.ports.contains_key(&mirror.to) => {
                Some("the port that it leads to is not attached")
            }
            Some(_) => None,
        };
        Some(MirrorView {
            to: self.port_ref(mirror.to),
            ingress: mirror.has(Direction::Ingress),
            egress: mirror.has(Direction::Egress),
            filter: mirror.filter.as_ref().map(ToString::to_string),
            missing: missing.map(str::to_owned),
        })
    }
}
