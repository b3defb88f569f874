//! Configuring a device and starting it with its queues.
//!
//! Devices differ in all that can be asked of them: numbers of queues and descriptors, frame sizes,
//! promiscuity. What is asked for is therefore brought down to what the device offers, and the
//! difference is told ([`Applied::shortfalls`]); only what cannot work at all is an error.

use std::mem::MaybeUninit;
use std::sync::Arc;

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};

use super::ethdev::{Device, control};
use super::{EthDev, EthError, Mempool, RxQueue, TxOffloads, TxQueue, errno_name};

/// What is asked of a device.
#[derive(Clone, Debug)]
pub struct EthConfig {
    /// Receive queues; frames are spread over them by a hash of their addresses.
    pub rxqs: u16,
    /// Transmit queues.
    pub txqs: u16,
    /// Descriptors of a receive queue: frames that may wait in it. 0 for the driver's preference.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue. 0 for the driver's preference.
    pub tx_descriptors: u16,
    /// Largest payload of a frame in bytes, without Ethernet header and tags.
    pub mtu: u16,
    /// Receive frames to all addresses, as a switch's uplink must.
    pub promiscuous: bool,
    /// Receive tagged frames of the VLANs alone that are [asked for](EthDev::hear_vlan), where the driver
    /// can. A virtual function receives none of the others in any case.
    pub vlan_filter: bool,
}

impl Default for EthConfig {
    fn default() -> Self {
        Self {
            rxqs: 1,
            txqs: 1,
            rx_descriptors: 0,
            tx_descriptors: 0,
            mtu: 1500,
            promiscuous: true,
            vlan_filter: false,
        }
    }
}

/// What a device was made to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Receive queues.
    pub rxqs: u16,
    /// Transmit queues.
    pub txqs: u16,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// Largest payload of a frame in bytes.
    pub mtu: u16,
    /// The driver has set the MTU. Without, the device passes longer frames, or fewer.
    pub mtu_enforced: bool,
    /// Frames to all addresses are received, as far as the driver knows.
    pub promiscuous: bool,
    /// The VLANs to be received have to be asked for.
    pub vlan_filter: bool,
    /// A received frame may have several segments.
    pub scattered_rx: bool,
    /// Frames of several segments may be sent.
    pub multi_segment_tx: bool,
    /// Checksums and segmentation that can be left to the device.
    pub tx_offloads: TxOffloads,
    /// One sentence for each wish that was not met in full.
    pub shortfalls: Vec<String>,
}

/// A started device's queues, one handle each, and what was applied.
#[derive(Debug)]
pub struct Started {
    /// Receive queues in their order.
    pub rxqs: Vec<RxQueue>,
    /// Transmit queues in their order.
    pub txqs: Vec<TxQueue>,
    /// What the device was made to do.
    pub applied: Applied,
}

/// Bytes around the payload that a buffer must hold besides: Ethernet header and two tags.
const OVERHEAD: u16 = 14 + 2 * 4;

/// Descriptors where neither the operator nor the driver has a preference.
pub const DESCRIPTORS: u16 = 1024;

impl EthDev {
    /// What [`configure_and_start`](Self::configure_and_start) would make of the device, as far as that
    /// is known before: its queues and their descriptors. Changes nothing.
    ///
    /// # Errors
    /// A wish cannot be met at all, or the driver does not tell.
    pub fn plan(&self, config: &EthConfig, pool: &Mempool) -> Result<Applied, EthError> {
        self.device.plan(&self.device.info()?, config, pool)
    }

    /// Configures the device and starts it, with `pool` as the source of received frames. A device
    /// that is started is stopped first.
    ///
    /// # Errors
    /// Queues of it are still held, a wish cannot be met at all, or the driver refuses. The device
    /// is stopped then, and can be configured again.
    pub fn configure_and_start(
        &mut self,
        config: &EthConfig,
        pool: &Mempool,
    ) -> Result<Started, EthError> {
        self.stop()?;
        let queues = Arc::strong_count(&self.device) - 1;
        let Some(device) = Arc::get_mut(&mut self.device) else {
            let device = self.device.name().to_owned();
            return Err(EthError::QueuesHeld { device, queues });
        };
        let control = control();
        let info = device.info()?;
        let mut applied = device.plan(&info, config, pool)?;
        device.configure(&info, &applied)?;
        if !device.pools.iter().any(|known| known.is(pool)) {
            device.pools.push(pool.clone());
        }
        device.set_up_queues(&info, &applied, pool)?;
        device.pools.retain(|known| known.is(pool));
        device.set_mtu(&mut applied);

        let port = device.port();
        // SAFETY: the port is ours, configured, and all its queues are set up.
        device.call("starting it", || unsafe { dpdk_sys::rte_eth_dev_start(port) })?;
        device.started_rxqs = applied.rxqs;
        if config.promiscuous {
            device.set_promiscuous(&mut applied);
        }
        drop(control);

        let rxqs = (0..applied.rxqs).map(|queue| RxQueue::new(self.device.clone(), queue));
        let txqs = (0..applied.txqs).map(|queue| TxQueue::new(self.device.clone(), queue));
        Ok(Started { rxqs: rxqs.collect(), txqs: txqs.collect(), applied })
    }
}

impl Device {
    fn plan(
        &self,
        info: &rte_eth_dev_info,
        config: &EthConfig,
        pool: &Mempool,
    ) -> Result<Applied, EthError> {
        let mut applied = plan(info, config, pool.data_room()).map_err(|(field, reason)| {
            EthError::Config { device: self.name().to_owned(), field, reason }
        })?;
        applied.tx_offloads = TxOffloads::wanted(info, self.driver());
        self.adjust_descriptors(config, &mut applied)?;
        Ok(applied)
    }

    /// Brings the numbers of descriptors to what the device can do.
    fn adjust_descriptors(
        &self,
        config: &EthConfig,
        applied: &mut Applied,
    ) -> Result<(), EthError> {
        let (rx, tx) = (&mut applied.rx_descriptors, &mut applied.tx_descriptors);
        // SAFETY: DPDK reads and writes the two numbers.
        self.call("adjusting its descriptors", || unsafe {
            dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.port(), rx, tx)
        })?;
        for (what, asked, got) in [
            ("receive", config.rx_descriptors, applied.rx_descriptors),
            ("transmit", config.tx_descriptors, applied.tx_descriptors),
        ] {
            if asked != 0 && asked != got {
                applied.shortfalls.push(format!(
                    "{what} queues have {got} descriptors instead of {asked}, as the device needs"
                ));
            }
        }
        Ok(())
    }

    fn configure(&self, info: &rte_eth_dev_info, applied: &Applied) -> Result<(), EthError> {
        let mut conf: MaybeUninit<rte_eth_conf> = MaybeUninit::zeroed();
        // SAFETY: the structure is plain numbers and null pointers; DPDK's defaults are its zeroes.
        let conf = unsafe { conf.assume_init_mut() };
        conf.rxmode.mtu = u32::from(applied.mtu);
        conf.rxmode.offloads = rx_offloads(applied);
        conf.txmode.offloads = tx_offloads(applied);
        let hashes = info.flow_type_rss_offloads & dpdk_sys::VIADUCT_RSS_HASHES;
        if applied.rxqs > 1 && hashes != 0 {
            conf.rxmode.mq_mode = dpdk_sys::VIADUCT_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = hashes;
        }
        // SAFETY: the port is ours and stopped; DPDK copies the structure.
        self.call("configuring it", || unsafe {
            dpdk_sys::rte_eth_dev_configure(self.port(), applied.rxqs, applied.txqs, conf)
        })
    }

    fn set_up_queues(
        &self,
        info: &rte_eth_dev_info,
        applied: &Applied,
        pool: &Mempool,
    ) -> Result<(), EthError> {
        let mut rx_conf = info.default_rxconf;
        let mut tx_conf = info.default_txconf;
        rx_conf.offloads = rx_offloads(applied);
        tx_conf.offloads = tx_offloads(applied);
        // -1, any node, is the same bits without sign in DPDK.
        let (port, socket) = (self.port(), self.socket() as u32);
        let (rx, tx) = (applied.rx_descriptors, applied.tx_descriptors);
        for queue in 0..applied.rxqs {
            // SAFETY: the port is ours, configured and stopped; DPDK copies the structure; the pool
            // is among those that the device keeps alive.
            self.call("setting up a receive queue", || unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(port, queue, rx, socket, &rx_conf, pool.as_ptr())
            })?;
        }
        for queue in 0..applied.txqs {
            // SAFETY: as above.
            self.call("setting up a transmit queue", || unsafe {
                dpdk_sys::rte_eth_tx_queue_setup(port, queue, tx, socket, &tx_conf)
            })?;
        }
        Ok(())
    }

    /// Has the driver set the MTU, which for a kernel interface reaches the interface itself.
    fn set_mtu(&self, applied: &mut Applied) {
        // SAFETY: the port is ours, configured and stopped.
        match unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.port(), applied.mtu) } {
            0 => applied.mtu_enforced = true,
            // The driver has no such call: either the configuration did it, or nothing limits it.
            status if status == -libc::ENOTSUP => {}
            status => applied.shortfalls.push(format!(
                "the driver refused to set MTU {} ({})",
                applied.mtu,
                errno_name(status)
            )),
        }
    }

    fn set_promiscuous(&self, applied: &mut Applied) {
        // SAFETY: the port is ours and started.
        let status = unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.port()) };
        applied.promiscuous = status == 0;
        if status != 0 {
            // Floods at least, then: what a VF gets by its address and what goes to groups.
            // SAFETY: as above.
            let groups = unsafe { dpdk_sys::rte_eth_allmulticast_enable(self.port()) } == 0;
            applied.shortfalls.push(format!(
                "promiscuous mode was refused ({}), frames to {} are received",
                errno_name(status),
                if groups { "its own address and to all groups" } else { "its own address only" }
            ));
        }
    }
}

/// What can be applied of `config`, by what the driver says; the error is a field and a reason.
fn plan(
    info: &rte_eth_dev_info,
    config: &EthConfig,
    data_room: u16,
) -> Result<Applied, (&'static str, String)> {
    let mut shortfalls = Vec::new();
    let mut queues = |field, what, asked: u16, offered: u16| {
        if asked == 0 {
            return Err((field, "0 queues are too few, ask for 1".to_owned()));
        }
        if offered == 0 {
            return Err((field, format!("the device has no {what} queues, use another")));
        }
        if asked > offered {
            shortfalls.push(format!("{offered} {what} queues instead of {asked}, it has no more"));
        }
        Ok(asked.min(offered))
    };
    let rxqs = queues("rxqs", "receive", config.rxqs, info.max_rx_queues)?;
    let txqs = queues("txqs", "transmit", config.txqs, info.max_tx_queues)?;

    let can_scatter = info.rx_offload_capa & dpdk_sys::VIADUCT_RX_SCATTER != 0;
    let largest = largest_mtu(info);
    let fits = data_room.saturating_sub(OVERHEAD);
    let mtu = if can_scatter { config.mtu.min(largest) } else { config.mtu.min(largest).min(fits) };
    if config.mtu < info.min_mtu || mtu < info.min_mtu {
        let reason = format!("{} is too small, the device begins at {}", mtu, info.min_mtu);
        return Err(("mtu", reason));
    }
    if mtu < config.mtu {
        let why = if mtu == largest { "the device" } else { "a buffer of the pool" };
        shortfalls.push(format!("MTU {mtu} instead of {}, {why} holds no more", config.mtu));
    }
    let or_default = |asked: u16, preferred: u16| match (asked, preferred) {
        (0, 0) => DESCRIPTORS,
        (0, preferred) => preferred,
        (asked, _) => asked,
    };
    Ok(Applied {
        rxqs,
        txqs,
        rx_descriptors: or_default(config.rx_descriptors, info.default_rxportconf.ring_size),
        tx_descriptors: or_default(config.tx_descriptors, info.default_txportconf.ring_size),
        mtu,
        mtu_enforced: false,
        promiscuous: false,
        vlan_filter: config.vlan_filter
            && info.rx_offload_capa & dpdk_sys::VIADUCT_RX_VLAN_FILTER != 0,
        scattered_rx: can_scatter && mtu > fits,
        tx_offloads: TxOffloads::default(),
        multi_segment_tx: info.tx_offload_capa & dpdk_sys::VIADUCT_TX_MULTI_SEGS != 0,
        shortfalls,
    })
}

/// The largest MTU that `rte_eth_dev_configure` accepts: what the driver says of it, and of frames,
/// whose length includes an overhead that DPDK guesses if the driver does not say.
fn largest_mtu(info: &rte_eth_dev_info) -> u16 {
    let overhead = if info.max_mtu != u16::MAX && info.max_rx_pktlen > u32::from(info.max_mtu) {
        info.max_rx_pktlen - u32::from(info.max_mtu)
    } else {
        18
    };
    let by_frame = info.max_rx_pktlen.saturating_sub(overhead);
    info.max_mtu.min(u16::try_from(by_frame).unwrap_or(u16::MAX))
}

fn rx_offloads(applied: &Applied) -> u64 {
    let scatter = if applied.scattered_rx { dpdk_sys::VIADUCT_RX_SCATTER } else { 0 };
    scatter | if applied.vlan_filter { dpdk_sys::VIADUCT_RX_VLAN_FILTER } else { 0 }
}

fn tx_offloads(applied: &Applied) -> u64 {
    let multi_segment = if applied.multi_segment_tx { dpdk_sys::VIADUCT_TX_MULTI_SEGS } else { 0 };
    multi_segment | applied.tx_offloads.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(max_rx_queues: u16, max_rx_pktlen: u32, max_mtu: u16) -> rte_eth_dev_info {
        // SAFETY: plain numbers and null pointers.
        let mut info: rte_eth_dev_info = unsafe { MaybeUninit::zeroed().assume_init() };
        (info.max_rx_queues, info.max_tx_queues) = (max_rx_queues, 8);
        (info.max_rx_pktlen, info.max_mtu, info.min_mtu) = (max_rx_pktlen, max_mtu, 46);
        info
    }

    #[test]
    fn wishes_come_down_to_what_the_device_offers() {
        let wish = EthConfig { rxqs: 4, mtu: 9000, ..EthConfig::default() };
        let applied = plan(&device(1, 1518, u16::MAX), &wish, 2048).expect("it works somehow");
        assert_eq!((applied.rxqs, applied.txqs, applied.mtu), (1, 1, 1500));
        assert_eq!((applied.rx_descriptors, applied.scattered_rx), (DESCRIPTORS, false));
        assert_eq!(
            applied.shortfalls,
            [
                "1 receive queues instead of 4, it has no more",
                "MTU 1500 instead of 9000, the device holds no more"
            ]
        );
    }

    #[test]
    fn a_frame_fits_one_buffer_or_is_scattered() {
        let wish = EthConfig { mtu: 9000, ..EthConfig::default() };
        let mut info = device(1, 9600, 9578);
        let applied = plan(&info, &wish, 2048).expect("it works somehow");
        assert_eq!((applied.mtu, applied.scattered_rx), (2048 - 22, false));
        assert_eq!(
            applied.shortfalls,
            ["MTU 2026 instead of 9000, a buffer of the pool holds no more"]
        );
        info.rx_offload_capa = dpdk_sys::VIADUCT_RX_SCATTER;
        let applied = plan(&info, &wish, 2048).expect("it works");
        assert_eq!((applied.mtu, applied.scattered_rx), (9000, true));
        assert!(applied.shortfalls.is_empty());
        let applied = plan(&info, &wish, 9216).expect("it works");
        assert!(!applied.scattered_rx, "large buffers need no scattering");
    }

    #[test]
    fn vlans_are_filtered_where_that_is_wanted_and_can_be() {
        let mut info = device(1, 1518, 1500);
        let wish = EthConfig { vlan_filter: true, ..EthConfig::default() };
        let bits = |info: &rte_eth_dev_info, wish: &EthConfig| {
            rx_offloads(&plan(info, wish, 2048).expect("it works"))
        };
        assert_eq!(bits(&info, &wish), 0);
        info.rx_offload_capa = dpdk_sys::VIADUCT_RX_VLAN_FILTER;
        assert_eq!(bits(&info, &wish), dpdk_sys::VIADUCT_RX_VLAN_FILTER);
        assert_eq!(bits(&info, &EthConfig::default()), 0);
    }

    #[test]
    fn what_cannot_work_is_an_error() {
        let good = EthConfig::default();
        for (info, wish, at) in [
            (device(1, 1518, 1500), EthConfig { rxqs: 0, ..good.clone() }, "rxqs"),
            (device(1, 1518, 1500), EthConfig { txqs: 0, ..good.clone() }, "txqs"),
            (device(0, 1518, 1500), good.clone(), "rxqs"),
            (device(1, 1518, 1500), EthConfig { mtu: 10, ..good.clone() }, "mtu"),
            (device(1, 40, u16::MAX), good, "mtu"),
        ] {
            let (field, reason) = plan(&info, &wish, 2048).expect_err(at);
            assert_eq!(field, at, "{reason}");
        }
    }
}
