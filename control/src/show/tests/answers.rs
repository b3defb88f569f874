//! Answers to send about.

use crate::model::Status;
use crate::show::view::*;
use crate::show::{Answer, Query};

/// An answer to each question.
pub fn answer(query: &Query) -> Answer {
    match query {
        Query::Summary {} => Answer::Summary(Box::new(Summary {
            version: "0.1.0".to_owned(),
            pid: 7,
            host: "compute-1".parse().expect("a host"),
            uptime_seconds: 60,
            taken_over: Some(TakenOverView {
                pid: 6,
                version: "0.0.9".to_owned(),
                at: "2026-01-02T03:04:05Z".parse().expect("a time"),
                guests: 1,
                pause_us: 4321,
            }),
            store: "directory /var/lib/viaduct".to_owned(),
            changed_seconds: None,
            cores: vec![2, 3],
            domains: 1,
            uplinks: Counts::default(),
            ports: Counts { ready: 1, ..Counts::default() },
            errors: 0,
            warnings: 0,
        })),
        Query::Handover { dry_run } => Answer::Handover(HandoverView {
            dry_run: *dry_run,
            pid: 8,
            version: "0.1.0".to_owned(),
            guests: 1,
            prepared_ms: 300,
            pause_us: (!dry_run).then_some(4321),
        }),
        Query::Ports {} => Answer::Ports(vec![
            port(web(), PortKind::VhostUser, Some(red())),
            port(uplink(), PortKind::Uplink, None),
        ]),
        Query::Bonds {} => Answer::Bonds(vec![BondView {
            physnet: "wire".parse().expect("a physnet"),
            mode: "lacp".to_owned(),
            up_delay_ms: 1000,
            monitor_ms: 20,
            since_seconds: 3,
            failovers: 1,
            outages: 0,
            lacp: Some(LacpView {
                system: Some("02:00:00:00:00:01".to_owned()),
                system_priority: 65535,
                rate: "fast".to_owned(),
                fallback: false,
            }),
            members: vec![BondMemberView {
                device: "0000:01:10.0".to_owned(),
                link: LinkView::Down,
                since_seconds: 3,
                speed_mbps: None,
                carries: false,
                primary: true,
                losses: 1,
                received_frames: 5,
                sent_frames: 6,
                ignored_frames: 0,
                reason: None,
                lacp: Some(LacpMemberView {
                    mux: "distributing".to_owned(),
                    actor: vec!["active".to_owned()],
                    port: 1,
                    key: 1,
                    partner: Some(LacpPartnerView {
                        system: "02:00:00:00:00:02".to_owned(),
                        system_priority: 32768,
                        key: 5,
                        port: 7,
                        port_priority: 32768,
                        state: vec!["in-sync".to_owned()],
                    }),
                    heard_ms: Some(400),
                    received: 9,
                    sent: 8,
                    markers: 1,
                    malformed: 2,
                    fault: Some("it ends after 20 octets of 124".to_owned()),
                    lost: 3,
                }),
            }],
        }]),
        Query::Domains {} => Answer::Domains(vec![DomainView {
            network: red(),
            number: Some(0),
            segment: SegmentView::Vlan { physnet: "wire".parse().expect("a physnet"), vlan: 100 },
            mtu: 1500,
            learning: true,
            flooding: true,
            members: vec![web(), uplink()],
            learned: 1,
        }]),
        Query::Fdb { network } => Answer::Fdb(FdbView {
            statistics: FdbStatisticsView::default(),
            entries: network
                .iter()
                .map(|_| FdbEntryView {
                    network: red(),
                    mac: "52:54:00:00:00:01".parse().expect("a MAC"),
                    port: uplink(),
                    age_seconds: Some(3),
                    origin: FdbOrigin::Learned,
                })
                .collect(),
        }),
        Query::Vhost { .. } => Answer::Vhost(vec![VhostView {
            port: web(),
            socket: "/run/web.sock".into(),
            mode: SocketModeView::Client,
            state: VhostState::Connected,
            reason: Some("the guest's driver does not run".to_owned()),
            features: None,
            protocol_features: vec!["VHOST_USER_PROTOCOL_F_MQ".to_owned()],
            driver_status: 0,
            mtu: None,
            memory: vec![RegionView { guest_address: 0, bytes: u64::MAX }],
            rings: vec![RingView {
                queue: 0,
                layout: Some(RingLayoutView::Packed),
                size: Some(256),
                state: "stopped".to_owned(),
                enabled: true,
                next_available: 65_535,
                next_used: None,
                frames: 0,
                bytes: 0,
                full: 0,
                too_big: 0,
                discarded: 0,
                kicks: 0,
            }],
            sessions: 1,
            last_error: None,
            refusal: None,
        }]),
        Query::Workers {} => {
            let work = Work { cycles: 3, busy_cycles: 1, frames: 7, ..Work::default() };
            let rxq = RxqView {
                port: web(),
                queue: 1,
                cores: vec![2],
                frames: 7,
                seconds: 5.25,
                load_percent: 12.5,
                cycles_per_frame: Some(180.0),
                burst_mean: None,
            };
            Answer::Workers(vec![WorkerView::new(0, 2, Some(250), vec![rxq], work)])
        }
        Query::Rebalance { dry_run } => Answer::Rebalance(RebalanceView {
            done: !dry_run,
            seconds: 5.25,
            workers: vec![BalanceView {
                number: 0,
                core: 2,
                before_percent: 80.0,
                after_percent: 40.5,
            }],
            moves: vec![MoveView { port: web(), queue: 1, from: 0, to: 1, load_percent: 39.5 }],
        }),
        Query::Config {} => Answer::Config(ConfigView {
            file: "/etc/viaduct/viaduct.toml".into(),
            values: [("workers.cores".to_owned(), serde_json::json!([2, 3]))].into(),
            applied: 2,
            refused: 1,
            last: Some(LastReloadView {
                at: "2026-01-02T03:04:05Z".parse().expect("a time"),
                outcome: ReloadOutcome::Refused,
            }),
        }),
        Query::Reload { dry_run, .. } => Answer::Reload(ReloadView {
            file: "/etc/viaduct/viaduct.toml".into(),
            outcome: if *dry_run { ReloadOutcome::Possible } else { ReloadOutcome::Applied },
            changes: vec![ChangeView {
                key: "log.level".to_owned(),
                line: Some(3),
                from: Some("info".into()),
                to: None,
                restart: None,
            }],
            problems: Vec::new(),
        }),
        Query::Acl { rules, .. } => {
            let rule = RuleView { rule: rule(), hits: 7 };
            Answer::Acl(vec![AclView {
                groups: vec![GroupRef { uuid: group(), name: "web".parse().ok() }],
                ports: vec![web()],
                entries: 9,
                memory_bytes: 4096,
                lines_read: 12,
                compile_seconds: 0.001,
                waits_for: None,
                refusal: Some("101 rules".to_owned()),
                rules: rules.then(|| AclRulesView {
                    ingress: SideView { rules: Vec::new(), unmatched: 3 },
                    egress: SideView { rules: vec![rule], unmatched: 0 },
                }),
            }])
        }
        Query::Explain { .. } => Answer::Explain(Box::new(ExplainView {
            port: web(),
            network: red(),
            port_security: PortSecurity::Filtered,
            reason: None,
            stations: vec![StationView {
                mac: "52:54:00:00:00:01".parse().expect("a MAC"),
                addresses: vec!["10.0.0.5".to_owned()],
            }],
            ethertypes: vec![0x88cc],
            groups: vec![GroupModeView {
                group: GroupRef { uuid: group(), name: None },
                return_traffic: ReturnTrafficView::Established,
            }],
            ingress: Vec::new(),
            egress: vec![StatementView {
                permits: true,
                words: "TCP to port 80 from anybody".to_owned(),
                rule: rule(),
            }],
        })),
        Query::Trial { from, frame, .. } => Answer::Trial(Box::new(TrialView {
            frame: frame.clone(),
            octets: "ffffffffffff".to_owned(),
            from: from.clone(),
            network: Some(red()),
            leave: Some(JudgementView {
                passes: true,
                rule: Some(rule()),
                ..JudgementView::default()
            }),
            flooded: true,
            to: vec![DeliveryView {
                port: uplink(),
                vlan: Some(100),
                judgement: JudgementView {
                    reason: Some("acl-ingress".to_owned()),
                    help: Some("No rule.".to_owned()),
                    ..JudgementView::default()
                },
            }],
            passes: false,
        })),
        Query::Capture { ports, .. } => Answer::Capture(WatchView { ports: ports.clone() }),
        Query::Trace { ports, .. } => Answer::Trace(WatchView { ports: ports.clone() }),
        Query::Memory {} => Answer::Memory(MemoryView {
            resident_bytes: Some(30 << 20),
            huge_bytes: None,
            pool: PoolView {
                frames: 8191,
                free_frames: 8000,
                frame_bytes: 2048,
                cache_frames: 384,
                unclaimed_frames: 100,
            },
            hugepages_needed: 129,
            devices: vec![DeviceMemoryView {
                port: uplink(),
                receive_frames: 1024,
                transmit_frames: 2048,
                bytes: 7 << 20,
            }],
            fdb_bytes: 1 << 21,
            acl_bytes: 0,
            guests: vec![GuestMemoryView { port: web(), bytes: 1 << 30, regions: 2 }],
        }),
        Query::Store {} => Answer::Store(Box::new(StoreView {
            location: "directory /var/lib/viaduct".to_owned(),
            away: true,
            source: SourceView::Store,
            revision: 7,
            values: 3,
            held: vec!["networks/6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d".parse().expect("a key")],
            readings: 1,
            changed_seconds: Some(5),
            claimed: true,
            reported: 2,
            report_failure: None,
            problems: Vec::new(),
        })),
        Query::Accept {} => Answer::Accept(AcceptView { let_go: Vec::new() }),
        Query::Drops {} => Answer::Drops(vec![DropView {
            port: web(),
            reason: "ring-full".to_owned(),
            side: Side::Egress,
            frames: 9,
            help: "The guest or NIC had no free receive buffer.".to_owned(),
        }]),
        Query::Errors {} => Answer::Errors(vec![ErrorView {
            object: "networks/x".to_owned(),
            line: None,
            field: "mtu".to_owned(),
            what: "5 is too small".to_owned(),
            remedy: "write 68 or more".to_owned(),
            severity: Severity::Error,
        }]),
    }
}

/// A network with a name.
pub fn red() -> NetworkRef {
    let uuid = "00000000-0000-4000-8000-000000000001".parse().expect("a UUID");
    NetworkRef { uuid, name: "red".parse().ok() }
}

/// A port without one.
pub fn web() -> PortRef {
    let uuid = "00000000-0000-4000-8000-000000000002".parse().expect("a UUID");
    PortRef::Port { uuid, name: None }
}

/// A rule, for what answers it.
fn rule() -> NamedRule {
    NamedRule {
        group: GroupRef { uuid: group(), name: None },
        number: 0,
        line: "ingress tcp 80".to_owned(),
        answer: Some("tcp from port 80 with ACK or RST".to_owned()),
    }
}

/// A security group.
fn group() -> crate::model::SecurityGroupUuid {
    "00000000-0000-4000-8000-000000000003".parse().expect("a UUID")
}

/// A wire.
pub fn uplink() -> PortRef {
    PortRef::Uplink { physnet: "wire".parse().expect("a physnet") }
}

/// A port in this place.
pub fn port(port: PortRef, kind: PortKind, network: Option<NetworkRef>) -> PortView {
    PortView {
        port,
        kind,
        number: Some(1),
        network,
        mac: "52:54:00:12:34:56".parse().ok(),
        status: Status::Waiting,
        reason: Some("no socket yet".to_owned()),
        admin_up: true,
        port_security: Some(PortSecurity::Filtered),
        mirror: None,
        socket: None,
        device: Some("net_tap0".to_owned()),
        interface: None,
        vf: None,
        filters: None,
        restarts: 8,
        queues: 1,
        workers: vec![0],
        received_frames: 1,
        received_bytes: 64,
        sent_frames: 2,
        sent_bytes: 128,
        dropped_frames: 3,
        flooded_frames: 4,
        software_checksums: 6,
        software_segments: 7,
        learned: 5,
    }
}
