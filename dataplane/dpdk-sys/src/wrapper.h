/*
 * What Viaduct uses of DPDK: read by bindgen, and included by the C that is compiled beside it.
 *
 * Only the names on the allow-list of build.rs reach Rust. Constants stand here as objects because
 * DPDK defines them by function-like macros, which bindgen cannot evaluate.
 */
#ifndef VIADUCT_WRAPPER_H
#define VIADUCT_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* Receives a piece of log text; level is 1 (emergency) to 8 (debug), see rte_log.h. */
typedef void (*viaduct_log_sink)(uint32_t level, const char *text, size_t length);

/* Sends all logs of EAL and drivers to sink; -1 if no stream can be made. */
int viaduct_log_redirect(viaduct_log_sink sink);

/* rte_eal_init, with what it would print on stdout and stderr sent to the log sink as well. */
int viaduct_eal_init(int argc, char **argv);

/* rte_errno of the calling thread; a thread-local that Rust cannot name. */
int viaduct_errno(void);

/* Asks the device for offloads; the lengths are bit-fields in a union, which Rust has no names for. */
static inline void viaduct_mbuf_leave(struct rte_mbuf *mbuf, uint64_t flags, uint64_t l2_len,
				      uint64_t l3_len, uint64_t l4_len, uint16_t segment)
{
	mbuf->ol_flags |= flags;
	mbuf->tx_offload = 0;
	mbuf->l2_len = l2_len;
	mbuf->l3_len = l3_len;
	mbuf->l4_len = l4_len;
	mbuf->tso_segsz = segment;
}

static const uint16_t VIADUCT_MAX_PORTS = RTE_MAX_ETHPORTS;
static const uint16_t VIADUCT_ALL_PORTS = RTE_ETH_ALL;
static const uint32_t VIADUCT_MAX_LCORES = RTE_MAX_LCORE;
static const uint16_t VIADUCT_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;
static const uint32_t VIADUCT_MEMPOOL_NAME_SIZE = RTE_MEMPOOL_NAMESIZE;
static const uint32_t VIADUCT_DEVICE_NAME_SIZE = RTE_DEV_NAME_MAX_LEN;
static const uint16_t VIADUCT_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t VIADUCT_MAX_SEGMENTS = RTE_MBUF_MAX_NB_SEGS;

static const uint64_t VIADUCT_MBUF_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t VIADUCT_MBUF_INDIRECT = RTE_MBUF_F_INDIRECT;

static const uint64_t VIADUCT_MBUF_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t VIADUCT_MBUF_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t VIADUCT_MBUF_TX_IP_CHECKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t VIADUCT_MBUF_TX_TCP_CHECKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t VIADUCT_MBUF_TX_UDP_CHECKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t VIADUCT_MBUF_TX_TCP_SEGMENTS = RTE_MBUF_F_TX_TCP_SEG;

static const uint64_t VIADUCT_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t VIADUCT_RX_VLAN_FILTER = RTE_ETH_RX_OFFLOAD_VLAN_FILTER;
static const uint64_t VIADUCT_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t VIADUCT_TX_IPV4_CHECKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t VIADUCT_TX_TCP_CHECKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t VIADUCT_TX_UDP_CHECKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t VIADUCT_TX_TCP_SEGMENTS = RTE_ETH_TX_OFFLOAD_TCP_TSO;
static const uint64_t VIADUCT_RSS_HASHES = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint32_t VIADUCT_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint32_t VIADUCT_SPEED_NONE = RTE_ETH_SPEED_NUM_NONE;
static const uint32_t VIADUCT_SPEED_UNKNOWN = RTE_ETH_SPEED_NUM_UNKNOWN;

#endif
