/*
 * The C that cannot be bound: a thread-local, and the redirection of C streams.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "wrapper.h"

static viaduct_log_sink log_sink;
static FILE *log_stream;

/* A cookie of NULL marks the log stream, whose level DPDK knows; others fix their level. */
static ssize_t stream_write(void *cookie, const char *text, size_t length)
{
	const uint32_t *level = cookie;

	log_sink(level ? *level : (uint32_t)rte_log_cur_msg_loglevel(), text, length);
	return (ssize_t)length;
}

static FILE *stream_open(const uint32_t *level)
{
	const cookie_io_functions_t functions = { .write = stream_write };

	return fopencookie((void *)(uintptr_t)level, "w", functions);
}

int viaduct_log_redirect(viaduct_log_sink sink)
{
	log_sink = sink;
	log_stream = stream_open(NULL);
	if (log_stream == NULL)
		return -1;
	return rte_openlog_stream(log_stream);
}

int viaduct_eal_init(int argc, char **argv)
{
	/*
	 * EAL prints its fatal errors to stderr and its usage to stdout, besides logging. Both are
	 * variables in glibc; nothing else in the process writes through them, Rust has its own.
	 */
	static const uint32_t error = RTE_LOG_ERR, debug = RTE_LOG_DEBUG;
	FILE *const old_stderr = stderr, *const old_stdout = stdout;
	FILE *const as_error = stream_open(&error), *const as_debug = stream_open(&debug);
	int result;

	if (as_error != NULL)
		stderr = as_error;
	if (as_debug != NULL)
		stdout = as_debug;
	result = rte_eal_init(argc, argv);
	stderr = old_stderr;
	stdout = old_stdout;
	if (as_error != NULL)
		fclose(as_error);
	if (as_debug != NULL)
		fclose(as_debug);
	return result;
}

int viaduct_errno(void)
{
	return rte_errno;
}
