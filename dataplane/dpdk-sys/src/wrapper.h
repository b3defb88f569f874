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

static const uint16_t VIADUCT_MAX_PORTS = RTE_MAX_ETHPORTS;
static const uint32_t VIADUCT_MAX_LCORES = RTE_MAX_LCORE;
static const uint16_t VIADUCT_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;
static const uint32_t VIADUCT_MEMPOOL_NAME_SIZE = RTE_MEMPOOL_NAMESIZE;
static const uint32_t VIADUCT_DEVICE_NAME_SIZE = RTE_DEV_NAME_MAX_LEN;
static const uint16_t VIADUCT_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t VIADUCT_MAX_SEGMENTS = RTE_MBUF_MAX_NB_SEGS;

static const uint64_t VIADUCT_MBUF_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t VIADUCT_MBUF_INDIRECT = RTE_MBUF_F_INDIRECT;

static const uint64_t VIADUCT_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t VIADUCT_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t VIADUCT_RSS_HASHES = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint32_t VIADUCT_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint32_t VIADUCT_SPEED_NONE = RTE_ETH_SPEED_NUM_NONE;
static const uint32_t VIADUCT_SPEED_UNKNOWN = RTE_ETH_SPEED_NUM_UNKNOWN;

#endif
