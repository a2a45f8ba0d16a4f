/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvitastor: the C ABI. The only door for QEMU, fio, NBD and other programs, and for the Node addon.
 *
 * Three handles:
 *   vitastor_cluster  one a process and cluster, counted; watches etcd on a thread of its own
 *   vitastor_context  one a thread: its ring and its connections; caller-driven, or with a thread of its own
 *   vitastor_image    an open image; may be used through any context of its cluster; unsynced writes belong to the image
 *
 * Errors are negative errno values. Option structs start with struct_size (set it to sizeof): fields that the library does not
 * know must be zero, missing ones count as zero. Callbacks run exactly once; those of a caller-driven context from inside
 * vitastor_context_run() on the calling thread, those of an own-thread context on that thread. No exception, no signal handler,
 * no global state, nothing printed (except through log_fn; NULL: errors and warnings go to stderr).
 */
#ifndef VITASTOR_H
#define VITASTOR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VITASTOR_API __attribute__((visibility("default")))

typedef struct vitastor_cluster vitastor_cluster;
typedef struct vitastor_context vitastor_context;
typedef struct vitastor_image vitastor_image;

/* level: 0 error, 1 warning, 2 info, 3 debug. text: NUL-terminated, borrowed. Any thread. */
typedef void (*vitastor_log_fn)(void *arg, int level, const char *text);
/* result: see the call. version: object version for single-object reads and writes, else 0. */
typedef void (*vitastor_io_fn)(void *arg, int64_t result, uint64_t version);

/* ---------------------------------------------------------------- cluster */

/* "name", "value" pairs override the configuration file and etcd (configuration.md 1). Borrowed during the call. */
struct vitastor_option {
    const char *name;
    const char *value;
};

struct vitastor_cluster_options {
    size_t struct_size;
    const char *config_path; /* NULL: /etc/vitastor/vitastor.conf if it exists */
    const struct vitastor_option *options;
    size_t option_count;
    vitastor_log_fn log_fn;
    void *log_arg;
    int fail_fast; /* non-zero: the first contact with etcd is given up after max_etcd_attempts instead of never */
};

/* Starts the watcher thread and returns at once; the first operations wait for the first load. Returns 0, or -EINVAL (message through log_fn
 * names the option and the reason), -ENOENT (no etcd_address). Same options in one process: the same cluster, counted. */
VITASTOR_API int vitastor_cluster_open(const struct vitastor_cluster_options *options, vitastor_cluster **cluster);
VITASTOR_API void vitastor_cluster_close(vitastor_cluster *cluster);

/* ---------------------------------------------------------------- context */

struct vitastor_context_options {
    size_t struct_size;
    int own_thread; /* 0: caller-driven; 1: a thread of its own, calls may come from any thread */
    uint32_t spin_us;
};

VITASTOR_API int vitastor_context_open(vitastor_cluster *cluster, const struct vitastor_context_options *options,
    vitastor_context **context);
/* All images opened through it must be closed and all operations done. */
VITASTOR_API void vitastor_context_close(vitastor_context *context);
/* Caller-driven only. Readable when vitastor_context_run(context, 0) has something to do. Ask for it before anything else is done with the context,
 * else it may be -EBUSY: a context that is to be polled works differently. */
VITASTOR_API int vitastor_context_fd(vitastor_context *context);
/* Caller-driven only. Runs what is ready; waits up to timeout_ms (0: not at all, -1: until something happened) if nothing is.
 * Submits everything queued before it returns. Returns the number of callbacks run, or negative errno. */
VITASTOR_API int vitastor_context_run(vitastor_context *context, int timeout_ms);
/* Caller-driven only. As vitastor_context_run(context, 0), but what is queued meanwhile stays where it is: vitastor_context_run() has to follow before
 * anybody polls. For those whose callbacks cause new operations, which leave together with it. */
VITASTOR_API int vitastor_context_collect(vitastor_context *context);
/* Caller-driven only. 1: vitastor_context_run() has something to do, timers aside; 0: not yet. For those who look for a while before they sleep: with
 * io_uring it enters no kernel. */
VITASTOR_API int vitastor_context_ready(vitastor_context *context);
/* Milliseconds until the next timer (-1: none), for the caller's own poll(). */
VITASTOR_API int vitastor_context_next_timeout(vitastor_context *context);

/* ---------------------------------------------------------------- image */

struct vitastor_image_options {
    size_t struct_size;
    const char *image;   /* name; or NULL and the three numbers */
    uint64_t pool;       /* 1 ... 65535 */
    uint64_t inode;      /* without pool bits, or full with them */
    uint64_t size_bytes; /* for pool/inode: what vitastor_image_size() shall say; multiple of 512 */
    int read_only;
    int skip_parents;    /* read this layer alone */
    /* Called when name now belongs to another inode, or the size or the read-only flag has changed. On the context's thread. */
    void (*changed_fn)(void *arg, uint64_t size_bytes, int read_only);
    void *changed_arg;
    /* Reads, writes and discards of any offset and length. What is no whole granule is read, changed and written back by compare-and-set, so that
     * nothing that others write to the rest of it is undone; it costs a read, and in pools that are not immediate_commit=all a flush. */
    int any_alignment;
    /* Writes may end in memory, and are sent by a flush, by closing the image, or when client_max_buffered_bytes or _ops are reached; only where
     * client_enable_writeback is set as well, and never with read_only or skip_parents. Reads through any handle of this process' cluster see them. Only for an
     * image that nobody else writes to meanwhile: other processes see older data until then, and a killed process loses what was not flushed. Keep each
     * caller-driven context running (vitastor_context_fd()), or flush before it rests: what it is sending, others wait for. */
    int writeback;
    /* Promise of the caller: until this handle is closed nobody else writes to the image, neither another process nor another handle of this one. Sequential
     * reads may then be answered from what was read ahead (client_readahead_bytes); read-only images and snapshots need no promise. */
    int exclusive;
};

/* Asynchronous. done_fn: 0, -ENOENT (no such image or pool; message through log_fn), -EINVAL, -ETIMEDOUT (fail_fast). *image is set before. */
VITASTOR_API int vitastor_image_open(vitastor_context *context, const struct vitastor_image_options *options,
    vitastor_image **image, vitastor_io_fn done_fn, void *done_arg);
/* Operations must be done. Waits for nothing but, with writeback, for buffered writes: 30 s at most, then they are given up with a message through log_fn; a
 * call from inside a callback does not wait, they are sent before the context is closed. Unsynced writes that were never flushed may be lost, as with any disk. */
VITASTOR_API void vitastor_image_close(vitastor_image *image);

VITASTOR_API uint64_t vitastor_image_size(vitastor_image *image);        /* bytes */
VITASTOR_API uint64_t vitastor_image_inode(vitastor_image *image);       /* full number */
VITASTOR_API uint32_t vitastor_image_block_size(vitastor_image *image);  /* bytes of one object, data chunks x block_size */
VITASTOR_API uint32_t vitastor_image_granularity(vitastor_image *image); /* bytes; every offset and length is a multiple of it (or costs more: any_alignment) */
VITASTOR_API int vitastor_image_read_only(vitastor_image *image);
VITASTOR_API int vitastor_image_immediate_commit(vitastor_image *image); /* 1: acknowledged writes are durable, flush is free; never with writeback */
VITASTOR_API int vitastor_image_writeback(vitastor_image *image);        /* 1: writes may end in memory */
VITASTOR_API int vitastor_image_has_parent(vitastor_image *image);       /* 1: a discard frees nothing */

/* ---------------------------------------------------------------- I/O
 * offset and length: multiples of the granularity, any size; iov is copied, its memory is borrowed until done_fn (4096-aligned memory avoids
 * nothing but is welcome). context: any context of the image's cluster, on its thread (or any thread if it has its own).
 * Results: bytes (= length) for read, write and discard, 0 for flush, or negative errno: -EINVAL (misaligned; beyond 64-bit), -EROFS, -EIO
 * (data unreadable; only with client_eio_retry_interval = 0), -ENOSPC (only with client_retry_enospc = false), -EINTR (compare-and-set failed),
 * -ENOENT (the image is removed, or being removed; reads: a layer below has no record), -ELOOP (reads: the layers form a ring). log_fn says which.
 * A return value other than 0 means that done_fn will not run: -EINVAL only. */
VITASTOR_API int vitastor_read(vitastor_image *image, vitastor_context *context, uint64_t offset, uint64_t length,
    const struct iovec *iov, int iov_count, vitastor_io_fn done_fn, void *done_arg);
VITASTOR_API int vitastor_write(vitastor_image *image, vitastor_context *context, uint64_t offset, uint64_t length,
    const struct iovec *iov, int iov_count, vitastor_io_fn done_fn, void *done_arg);
/* Which granules of the range (of whole granules, always) hold data, in this image or in a layer below it (skip_parents: in this one alone); reads no data. bitmap: bit n % 8 of byte
 * n / 8 is the granule at offset + n * granularity, (length / granularity + 7) / 8 bytes, borrowed until done_fn, undefined after an error. Without
 * skip_parents a granule whose bit is 0 reads as zeroes. Result: the number of granules, or negative errno as vitastor_read(). */
VITASTOR_API int vitastor_read_bitmap(vitastor_image *image, vitastor_context *context, uint64_t offset,
    uint64_t length, uint8_t *bitmap, vitastor_io_fn done_fn, void *done_arg);
/* Only if the object's version is expected_version (0: does not exist); must fit one object. -EINTR: another version, or the outcome is unknown. */
VITASTOR_API int vitastor_compare_write(vitastor_image *image, vitastor_context *context, uint64_t offset,
    uint64_t length, const struct iovec *iov, int iov_count, uint64_t expected_version, vitastor_io_fn done_fn,
    void *done_arg);
/* Durable on return: every write of the image that completed before the call, through whichever context it went. With writeback also the error of one that
 * could not be sent; it stays in memory, and the next flush tries again. */
VITASTOR_API int vitastor_flush(vitastor_image *image, vitastor_context *context, vitastor_io_fn done_fn, void *done_arg);
/* The range reads as zeroes afterwards (images without a parent: whole objects are deleted; the rest is written with zeroes). */
VITASTOR_API int vitastor_discard(vitastor_image *image, vitastor_context *context, uint64_t offset, uint64_t length,
    vitastor_io_fn done_fn, void *done_arg);
/* Deletes one whole object; offset anywhere inside. expected_version: UINT64_MAX = unconditional. For tools. */
VITASTOR_API int vitastor_delete_object(vitastor_image *image, vitastor_context *context, uint64_t offset,
    uint64_t expected_version, vitastor_io_fn done_fn, void *done_arg);

/* Deletes the data of an inode (rm-data): lists every PG, deletes each object, syncs. progress_fn: objects that are done, objects of the PGs
 * listed so far, PGs still to be listed; may be NULL. The result is a JSON object {removed_objects, total_objects, error_count, inactive_osds,
 * inactive_pgs}, borrowed during done_fn. */
struct vitastor_purge_options {
    size_t struct_size;
    uint64_t pool;
    uint64_t inode;
    uint64_t min_offset; /* bytes; only objects that lie wholly at or above it */
    uint64_t max_offset; /* bytes, exclusive; 0 = no bound */
    uint32_t iodepth;       /* 0: 32 */
    uint32_t parallel_osds; /* 0: 4 */
    int wait_list;
    int down_ok;
    void (*progress_fn)(void *arg, uint64_t done, uint64_t total, uint64_t unlisted_pgs);
    void *progress_arg;
    int cut; /* the object that min_offset lies in reads as zeroes from there on, also where a parent has data; nothing before it changes */
};
VITASTOR_API int vitastor_purge(vitastor_context *context, const struct vitastor_purge_options *options,
    void (*done_fn)(void *arg, int result, const char *json), void *done_arg);

/* Merges layers: `layers` is a chain, lowest first, of 2 to 4096 full inode numbers (as vitastor_image_inode()), borrowed during the call. Writes into
 * layers[target] exactly those granules that the view of the topmost layer, read over these layers alone, takes from another layer: what is
 * present in a layer above the target wins over it, what is present only below fills what it lacks; a granule that no layer has stays absent.
 * No other layer changes, and no metadata. The target is written to although its metadata may say read-only; layers other than the target must not be
 * written to meanwhile. May be interrupted (close the context) and repeated. Bitmap granularities: that of the target divides all others.
 * progress_fn: objects of the target that are done and in total, and bytes written so far; may be NULL. result: 0: all is durable; -EINVAL, -ENOENT (no
 * such pool), -EAGAIN (a PG count has changed, or others write all the time: repeat), -ETIMEDOUT (a PG stays inactive), -EIO, -ENOSPC, -ECANCELED.
 * json: {merged_objects, total_objects, written_bytes, error}, borrowed during done_fn; error: '' or a sentence. */
struct vitastor_merge_options {
    size_t struct_size;
    const uint64_t *layers;
    size_t layer_count;
    size_t target; /* index into layers */
    int cas;       /* others may write to the target: 1 yes, -1 no, 0: if it is the topmost layer, unless it is read-only and has children */
    uint32_t iodepth;        /* 0: 32; objects under way per OSD */
    uint32_t parallel_osds;  /* 0: 4 */
    uint32_t fsync_interval; /* 0: 128; writes between two flushes where the pool needs them */
    void (*progress_fn)(void *arg, uint64_t done, uint64_t total, uint64_t bytes);
    void *progress_arg;
};
VITASTOR_API int vitastor_merge(vitastor_context *context, const struct vitastor_merge_options *options,
    void (*done_fn)(void *arg, int result, const char *json), void *done_arg);

/* Which parts of an image these layers hold, from their bitmaps; reads no data. A granule counts if it is present in any of the layers (a written range
 * of zeroes is): with all layers of an image, the rest of it reads as zeroes; with the layers above a snapshot, it is what has changed since. Objects are
 * listed first, so that what is not there costs nothing. progress_fn: objects asked for and in total; may be NULL. */
struct vitastor_extent {
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes, not 0 */
};
struct vitastor_map_options {
    size_t struct_size;
    const uint64_t *layers; /* 1 to 4096 full inode numbers in any order, borrowed during the call */
    size_t layer_count;
    uint64_t min_offset; /* bytes of the image that are looked at */
    uint64_t max_offset; /* exclusive; 0 = no bound */
    uint64_t max_extents;   /* 0: 2^20; when about so many have been found the run ends, see next_offset */
    uint32_t iodepth;       /* 0: 32; objects under way per OSD */
    uint32_t parallel_osds; /* 0: 4 */
    void (*progress_fn)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};
/* done_fn: result 0, or -EINVAL, -ENOENT (no such pool), -EAGAIN (a PG count has changed: repeat), -ETIMEDOUT (a PG stays inactive), -EIO, -ECANCELED. extents:
 * `count` of them in order, none touching the next, borrowed; next_offset: UINT64_MAX: that is all; else go on with min_offset = next_offset (the last extent may
 * touch the first one of the next run). error: '' or a sentence, borrowed. */
VITASTOR_API int vitastor_map_layers(vitastor_context *context, const struct vitastor_map_options *options,
    void (*done_fn)(void *arg, int result, const struct vitastor_extent *extents, size_t count, uint64_t next_offset, const char *error),
    void *done_arg);

/* "3.0.8-ours.1" and the like. Static. */
VITASTOR_API const char *vitastor_version(void);

#ifdef __cplusplus
}
#endif
#endif
