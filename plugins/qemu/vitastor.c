/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU block driver over libvitastor. A protocol driver: raw (or any other format) stands on top. Loaded by LD_PRELOAD into an unmodified QEMU; in
 * any other process it does nothing. With VITASTOR_IN_QEMU it is a part of QEMU (patches/), where it has -blockdev too.
 */
#include "options.h"
#include "queue.h"

#ifdef VITASTOR_IN_QEMU
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qobject-output-visitor.h"
#include "qapi/visitor.h"
#else
#include <dlfcn.h>
#endif

#define STATUS_WINDOW_MAX (UINT64_C(64) << 20) /* bytes of image whose bitmap is asked for at a time */
#define STATUS_KEPT_NS 1000000000              /* how long an answer is good for: others may write */

typedef struct BDRVVitastorState {
    VitastorOptions options;
    vitastor_cluster *cluster;
    VitastorQueues *queues;
    vitastor_image *image;
    uint64_t size_here; /* of an inode without a name: what truncate has set */
    bool changed;       /* size, inode or read-only flag; main thread */
    /* Writes, discards and write-zeroes, for the bitmap below. */
    uint64_t writes_begun, writes_ended;
    pthread_mutex_t status_lock;
    struct {
        uint64_t offset, length; /* length 0: nothing */
        uint64_t at_writes;      /* writes_begun when it was read */
        int64_t at_ns;
        uint64_t window;         /* doubles while ranges are asked for one after the other */
        uint8_t *bits;
    } status; /* under status_lock */
} BDRVVitastorState;

/* ---- opening */

/* Errors of libvitastor while this thread opens something: for its own message. */
static __thread char *open_error;
static __thread bool opening;

static void on_log(void *arg, int level, const char *text)
{
    (void)arg;
    if (opening && level == 0) {
        g_free(open_error);
        open_error = g_strdup(text);
    } else if (level == 0) {
        error_report("vitastor: %s", text);
    } else if (level == 1) {
        warn_report("vitastor: %s", text);
    }
}

static void on_opened(void *arg, int64_t result, uint64_t version)
{
    (void)version;
    *(int64_t *)arg = result;
}

static int open_cluster(const VitastorOptions *options, vitastor_cluster **cluster)
{
    struct vitastor_option pairs[2];
    struct vitastor_cluster_options given = { .struct_size = sizeof(given) };
    size_t count = 0;
    if (options->etcd_host)
        pairs[count++] = (struct vitastor_option){ "etcd_address", options->etcd_host };
    if (options->etcd_prefix)
        pairs[count++] = (struct vitastor_option){ "etcd_prefix", options->etcd_prefix };
    given.config_path = options->config_path;
    given.options = pairs;
    given.option_count = count;
    given.log_fn = on_log;
    given.fail_fast = 1;
    return vitastor_cluster_open(&given, cluster);
}

/* Opens the image through `context`, which nothing else runs. Returns 0 or negative errno; *image is to be closed in either case. */
static int open_image(const VitastorOptions *options, vitastor_context *context, void (*changed_fn)(void *, uint64_t, int), void *arg,
    bool cached, vitastor_image **image)
{
    struct vitastor_image_options given = { .struct_size = sizeof(given) };
    int64_t result = 1;
    int error;
    given.image = options->image;
    given.pool = options->pool;
    given.inode = options->inode;
    given.size_bytes = options->image ? 0 : options->size;
    given.skip_parents = options->skip_parents;
    given.changed_fn = changed_fn;
    given.changed_arg = arg;
    given.any_alignment = 1;
    given.writeback = cached; /* and client_enable_writeback in the configuration */
    error = vitastor_image_open(context, &given, image, on_opened, &result);
    while (!error && result == 1)
        vitastor_context_run(context, -1);
    return error ? error : (int)result;
}

/* What begin_open() has collected, or the error's own name. */
static void set_open_error(Error **errp, const VitastorOptions *options, int error)
{
    g_autofree char *what = vitastor_describe(options);
    if (open_error)
        error_setg(errp, "vitastor: %s", open_error);
    else
        error_setg_errno(errp, -error, "vitastor: %s cannot be opened", what);
    if (error == -ENOENT && !options->etcd_host && open_error && strstr(open_error, "etcd_address"))
        error_append_hint(errp, "Add etcd-host=HOST\\:PORT to the file name, or etcd_address to the configuration file.\n");
}

static void begin_open(void)
{
    opening = true;
    g_free(open_error);
    open_error = NULL;
}

static void end_open(void)
{
    opening = false;
    g_free(open_error);
    open_error = NULL;
}

static void on_changed(void *arg, uint64_t size_bytes, int read_only)
{
    BDRVVitastorState *s = ((BlockDriverState *)arg)->opaque;
    (void)size_bytes;
    (void)read_only;
    s->changed = true;
}

/* Devices on top learn of a new size. Formats between pass it on only if they follow the size of what they stand on, as raw does. */
static void notify_parents(BlockDriverState *bs, int depth)
{
    BdrvChild *child;
    QLIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->resize) {
            child->klass->resize(child);
        } else if (child->klass->parent_is_bds && depth < 16) {
            BlockDriverState *parent = child->opaque;
            if (parent->drv && !strcmp(parent->drv->format_name, "raw"))
                notify_parents(parent, depth + 1);
        }
    }
}

static void forget_status(BDRVVitastorState *s)
{
    pthread_mutex_lock(&s->status_lock);
    s->status.length = 0;
    pthread_mutex_unlock(&s->status_lock);
}

/* Main thread, after its context has run. */
static void on_main_run(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVVitastorState *s = bs->opaque;
    if (!s->changed)
        return;
    s->changed = false;
    forget_status(s);
#if VITASTOR_AIO_LOCKS
    {
        AioContext *aio = bdrv_get_aio_context(bs);
        aio_context_acquire(aio);
        notify_parents(bs, 0);
        aio_context_release(aio);
    }
#else
    {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        notify_parents(bs, 0);
    }
#endif
}

static int64_t current_size(BDRVVitastorState *s)
{
    return s->size_here ? (int64_t)s->size_here : (int64_t)vitastor_image_size(s->image);
}

static void close_all(BDRVVitastorState *s)
{
    if (s->queues)
        vitastor_queues_detach_all(s->queues);
    if (s->image)
        vitastor_image_close(s->image);
    if (s->queues)
        vitastor_queues_free(s->queues);
    if (s->cluster)
        vitastor_cluster_close(s->cluster);
    g_free(s->status.bits);
    pthread_mutex_destroy(&s->status_lock);
    vitastor_clear_options(&s->options);
    memset(s, 0, sizeof(*s));
}

static int driver_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    BDRVVitastorState *s = bs->opaque;
    vitastor_context *context;
    int error = vitastor_take_options(options, &s->options, errp);
    if (error)
        return error;
    pthread_mutex_init(&s->status_lock, NULL);
    begin_open();
    error = open_cluster(&s->options, &s->cluster);
    if (!error) {
        s->queues = vitastor_queues_new(s->cluster, on_main_run, bs);
        context = vitastor_queues_open(s->queues, &error);
        if (context)
            error = open_image(&s->options, context, on_changed, bs, !(flags & BDRV_O_NOCACHE), &s->image);
    }
    if (error)
        set_open_error(errp, &s->options, error);
    end_open();
    if (!error && !current_size(s)) {
        g_autofree char *what = vitastor_describe(&s->options);
        error_setg(errp, s->options.image ? "vitastor: %s has no size" : "vitastor: the size of %s is not known: give size=BYTES", what);
        error = -EINVAL;
    }
    if (!error && vitastor_image_read_only(s->image)) {
        g_autofree char *what = vitastor_describe(&s->options);
        g_autofree char *text = g_strdup_printf("vitastor: %s is read-only (a snapshot, or made so by vitastor-cli modify --readonly)", what);
        error = bdrv_apply_auto_read_only(bs, text, errp);
    }
    if (error) {
        close_all(s);
        return error;
    }
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    vitastor_queues_start(s->queues);
    return 0;
}

static void driver_close(BlockDriverState *bs)
{
    close_all(bs->opaque);
}

static int driver_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp)
{
    BDRVVitastorState *s = state->bs->opaque;
    (void)queue;
    if ((state->flags & BDRV_O_RDWR) && vitastor_image_read_only(s->image)) {
        g_autofree char *what = vitastor_describe(&s->options);
        error_setg(errp, "vitastor: %s is read-only", what);
        return -EACCES;
    }
    return 0;
}

static void driver_refresh_filename(BlockDriverState *bs)
{
    BDRVVitastorState *s = bs->opaque;
    vitastor_make_filename(&s->options, bs->exact_filename, sizeof(bs->exact_filename));
}

static void driver_refresh_limits(BlockDriverState *bs, Error **errp)
{
    BDRVVitastorState *s = bs->opaque;
    uint32_t object = vitastor_image_block_size(s->image);
    (void)errp;
    bs->bl.request_alignment = 512; /* libvitastor changes parts of granules by compare-and-set */
    bs->bl.min_mem_alignment = 1;
    bs->bl.opt_mem_alignment = 4096;
    bs->bl.pdiscard_alignment = object;
    bs->bl.max_pdiscard = (int64_t)object * 4096;
    bs->bl.max_pwrite_zeroes = (int64_t)object * 1024;
#if QEMU_VERSION_MAJOR >= 10
    bs->bl.has_variable_length = true;
#endif
}

static int driver_probe_blocksizes(BlockDriverState *bs, BlockSizes *sizes)
{
    (void)bs;
    sizes->log = 512;
    sizes->phys = 4096;
    return 0;
}

/* ---- event loops */

static void driver_detach_aio_context(BlockDriverState *bs)
{
    BDRVVitastorState *s = bs->opaque;
    vitastor_queues_detach(s->queues, bdrv_get_aio_context(bs));
}

static void driver_attach_aio_context(BlockDriverState *bs, AioContext *aio)
{
    /* The first request there opens its queue, in the right thread. */
    (void)bs;
    (void)aio;
}

/* ---- I/O */

static int64_t coroutine_fn run(BDRVVitastorState *s, VitastorRequest *request)
{
    bool change = request->kind == VITASTOR_REQUEST_WRITE || request->kind == VITASTOR_REQUEST_DISCARD;
    int64_t result;
    request->image = s->image;
    if (change)
        qatomic_inc(&s->writes_begun);
    result = vitastor_queues_run(s->queues, request);
    if (change)
        qatomic_inc(&s->writes_ended);
    return result;
}

static int coroutine_fn driver_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes, QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    VitastorRequest request = { .kind = VITASTOR_REQUEST_READ, .offset = offset, .bytes = bytes, .qiov = qiov };
    int64_t result = run(bs->opaque, &request);
    (void)flags;
    return result < 0 ? (int)result : 0;
}

static int coroutine_fn driver_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes, QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    VitastorRequest request = { .kind = VITASTOR_REQUEST_WRITE, .offset = offset, .bytes = bytes, .qiov = qiov };
    int64_t result = run(bs->opaque, &request);
    (void)flags;
    return result < 0 ? (int)result : 0;
}

static int coroutine_fn driver_co_flush(BlockDriverState *bs)
{
    VitastorRequest request = { .kind = VITASTOR_REQUEST_FLUSH };
    return (int)run(bs->opaque, &request);
}

/* Frees what may be freed, the rest is written. Without leave to unmap QEMU writes zeroes itself. */
static int coroutine_fn driver_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    VitastorRequest request = { .kind = VITASTOR_REQUEST_DISCARD, .offset = offset, .bytes = bytes };
    int64_t result;
    if (!(flags & BDRV_REQ_MAY_UNMAP))
        return -ENOTSUP;
    result = run(bs->opaque, &request);
    return result < 0 ? (int)result : 0;
}

/*
 * A hint: it is followed where it frees space. Parts of objects, and everything in an image with a parent, would have to be filled with zeroes instead
 * (semantics 11, safety 8).
 */
static int coroutine_fn driver_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVVitastorState *s = bs->opaque;
    VitastorRequest request = { .kind = VITASTOR_REQUEST_DISCARD };
    uint64_t object = vitastor_image_block_size(s->image);
    uint64_t begin = QEMU_ALIGN_UP((uint64_t)offset, object);
    uint64_t end = (uint64_t)(offset + bytes);
    int64_t result;
    end = end >= (uint64_t)current_size(s) ? QEMU_ALIGN_UP(end, object) : QEMU_ALIGN_DOWN(end, object);
    if (begin >= end || s->options.skip_parents || vitastor_image_has_parent(s->image))
        return -ENOTSUP;
    request.offset = begin;
    request.bytes = end - begin;
    result = run(s, &request);
    return result < 0 ? (int)result : 0;
}

/* ---- block status */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Bytes from `offset` on that are alike. */
static uint64_t run_of(const uint8_t *bits, uint64_t bits_offset, uint64_t bits_length, uint64_t granularity, uint64_t offset, bool *data)
{
    uint64_t first = (offset - bits_offset) / granularity, last, count = bits_length / granularity;
    *data = bits[first / 8] >> (first % 8) & 1;
    for (last = first + 1; last < count && (bits[last / 8] >> (last % 8) & 1) == *data; last++)
        continue;
    return bits_offset + last * granularity - offset;
}

/* From what was read before, if that still holds; 0: it does not. */
static uint64_t kept_run(BDRVVitastorState *s, uint64_t offset, uint64_t granularity, bool *data)
{
    uint64_t length = 0;
    pthread_mutex_lock(&s->status_lock);
    if (offset >= s->status.offset && offset < s->status.offset + s->status.length &&
        s->status.at_writes == qatomic_read(&s->writes_begun) && now_ns() - s->status.at_ns <= STATUS_KEPT_NS)
        length = run_of(s->status.bits, s->status.offset, s->status.length, granularity, offset, data);
    pthread_mutex_unlock(&s->status_lock);
    return length;
}

/* Asks, and keeps the answer. *length: bytes from `offset` on that are alike. */
static int coroutine_fn read_run(BDRVVitastorState *s, uint64_t offset, uint64_t bytes, uint64_t granularity, uint64_t *length, bool *data)
{
    VitastorRequest request = { .kind = VITASTOR_REQUEST_BITMAP };
    uint64_t object = MAX(vitastor_image_block_size(s->image), granularity), end, window, begun;
    int64_t at_ns, result;
    uint8_t *bits;
    pthread_mutex_lock(&s->status_lock);
    if (s->status.window && QEMU_ALIGN_DOWN(offset, granularity) == s->status.offset + s->status.length)
        window = MIN(s->status.window * 2, MAX(STATUS_WINDOW_MAX, object));
    else
        window = object;
    pthread_mutex_unlock(&s->status_lock);
    request.offset = QEMU_ALIGN_DOWN(offset, granularity);
    end = MIN(QEMU_ALIGN_UP(offset + bytes, object), QEMU_ALIGN_DOWN(offset, object) + window);
    request.bytes = end - request.offset;
    bits = g_malloc0(request.bytes / granularity / 8 + 1);
    request.bitmap = bits;
    begun = qatomic_read(&s->writes_begun);
    if (begun != qatomic_read(&s->writes_ended))
        begun = UINT64_MAX; /* good for this answer alone */
    at_ns = now_ns();
    result = run(s, &request);
    if (result < 0) {
        g_free(bits);
        return (int)result;
    }
    *length = run_of(bits, request.offset, request.bytes, granularity, offset, data);
    pthread_mutex_lock(&s->status_lock);
    g_free(s->status.bits);
    s->status.bits = bits;
    s->status.offset = request.offset;
    s->status.length = request.bytes;
    s->status.at_writes = begun;
    s->status.at_ns = at_ns;
    s->status.window = window;
    pthread_mutex_unlock(&s->status_lock);
    return 0;
}

static int coroutine_fn driver_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset, int64_t bytes, int64_t *pnum,
    int64_t *map, BlockDriverState **file)
{
    BDRVVitastorState *s = bs->opaque;
    uint64_t granularity = vitastor_image_granularity(s->image);
    bool data = true;
    uint64_t length = kept_run(s, offset, granularity, &data);
    (void)want_zero;
    if (!length) {
        int error = read_run(s, offset, bytes, granularity, &length, &data);
        if (error)
            return error;
    }
    *pnum = (int64_t)length;
    *map = offset;
    *file = bs;
    if (data)
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    /* Of a layer alone: not its own. */
    return s->options.skip_parents ? 0 : BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
}

/* ---- size and information */

#if QEMU_VERSION_MAJOR >= 8
static int64_t coroutine_fn driver_getlength(BlockDriverState *bs)
#else
static int64_t driver_getlength(BlockDriverState *bs)
#endif
{
    return current_size(bs->opaque);
}

#if QEMU_VERSION_MAJOR >= 8
static int coroutine_fn driver_get_info(BlockDriverState *bs, BlockDriverInfo *info)
#else
static int driver_get_info(BlockDriverState *bs, BlockDriverInfo *info)
#endif
{
    BDRVVitastorState *s = bs->opaque;
    info->cluster_size = (int)vitastor_image_granularity(s->image);
    return 0;
}

static int coroutine_fn driver_co_truncate(BlockDriverState *bs, int64_t offset, bool exact, PreallocMode prealloc, BdrvRequestFlags flags,
    Error **errp)
{
    BDRVVitastorState *s = bs->opaque;
    int64_t size = current_size(s);
    (void)flags;
    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "vitastor: preallocation is not supported");
        return -ENOTSUP;
    }
    if (offset == size || (offset < size && !exact))
        return 0;
    if (!s->options.image) {
        s->size_here = offset;
        return 0;
    }
    error_setg(errp, "vitastor: image %s has %" PRId64 " bytes; it is resized by vitastor-cli, and QEMU follows", s->options.image, size);
    error_append_hint(errp, "  vitastor-cli modify --resize %" PRId64 " %s\n", offset, s->options.image);
    return -ENOTSUP;
}

static void coroutine_fn driver_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    (void)errp;
    forget_status(bs->opaque);
}

/* ---- creation: the image is there already, and large enough */

static QemuOptsList create_options = {
    .name = "vitastor-create-opts",
    .head = QTAILQ_HEAD_INITIALIZER(create_options.head),
    .desc = {
        { .name = BLOCK_OPT_SIZE, .type = QEMU_OPT_SIZE, .help = "Virtual disk size" },
        { /* end */ },
    },
};

/* Is there an image of `wanted` bytes? Takes what `options` points to. */
static int check_created(VitastorOptions *options, uint64_t wanted, Error **errp)
{
    struct vitastor_context_options context_options = { .struct_size = sizeof(context_options) };
    vitastor_cluster *cluster = NULL;
    vitastor_context *context = NULL;
    vitastor_image *image = NULL;
    uint64_t size = 0;
    int error;
    begin_open();
    error = open_cluster(options, &cluster);
    if (!error)
        error = vitastor_context_open(cluster, &context_options, &context);
    if (!error)
        error = open_image(options, context, NULL, NULL, false, &image);
    if (error)
        set_open_error(errp, options, error);
    else
        size = vitastor_image_size(image);
    end_open();
    if (image)
        vitastor_image_close(image);
    if (context)
        vitastor_context_close(context);
    if (cluster)
        vitastor_cluster_close(cluster);
    if (error == -ENOENT && cluster && options->image) {
        error_append_hint(errp, "Images are created by vitastor-cli:\n  vitastor-cli create -s %" PRIu64 " %s\n", wanted, options->image);
    } else if (!error && size < wanted) {
        g_autofree char *what = vitastor_describe(options);
        error_setg(errp, "vitastor: %s has %" PRIu64 " bytes, %" PRIu64 " are needed", what, size, wanted);
        if (options->image)
            error_append_hint(errp, "  vitastor-cli modify --resize %" PRIu64 " %s\n", wanted, options->image);
        error = -ENOSPC;
    }
    vitastor_clear_options(options);
    return error;
}

static int coroutine_fn driver_co_create_opts(BlockDriver *drv, const char *filename, QemuOpts *opts, Error **errp)
{
    ERRP_GUARD();
    VitastorOptions options;
    uint64_t wanted = qemu_opt_get_size_del(opts, BLOCK_OPT_SIZE, 0);
    QDict *dict = qdict_new();
    int error = -EINVAL;
    (void)drv;
    vitastor_parse_filename(filename, dict, errp);
    if (!*errp)
        error = vitastor_take_options(dict, &options, errp);
    qobject_unref(dict);
    return error ? error : check_created(&options, wanted, errp);
}

#ifdef VITASTOR_IN_QEMU
/* blockdev-create */
static int coroutine_fn driver_co_create(BlockdevCreateOptions *create, Error **errp)
{
    ERRP_GUARD();
    VitastorOptions options;
    QObject *object = NULL;
    Visitor *visitor = qobject_output_visitor_new(&object);
    int error;
    visit_type_BlockdevOptionsVitastor(visitor, NULL, &create->u.vitastor.location, &error_abort);
    visit_complete(visitor, &object);
    visit_free(visitor);
    error = vitastor_take_options(qobject_to(QDict, object), &options, errp);
    qobject_unref(object);
    return error ? error : check_created(&options, create->u.vitastor.size, errp);
}
#endif

/* ---- the driver */

static BlockDriver bdrv_vitastor = {
    .format_name = "vitastor",
    .protocol_name = "vitastor",
    .instance_size = sizeof(BDRVVitastorState),
    .strong_runtime_opts = vitastor_strong_options,
    .create_opts = &create_options,

    .bdrv_parse_filename = vitastor_parse_filename,
#if QEMU_VERSION_MAJOR >= 9
    .bdrv_open = driver_open,
#else
    .bdrv_file_open = driver_open,
#endif
    .bdrv_close = driver_close,
    .bdrv_reopen_prepare = driver_reopen_prepare,
    .bdrv_co_create_opts = driver_co_create_opts,
#ifdef VITASTOR_IN_QEMU
    .bdrv_co_create = driver_co_create,
#endif
    .bdrv_refresh_filename = driver_refresh_filename,
    .bdrv_refresh_limits = driver_refresh_limits,
    .bdrv_probe_blocksizes = driver_probe_blocksizes,
    .bdrv_detach_aio_context = driver_detach_aio_context,
    .bdrv_attach_aio_context = driver_attach_aio_context,

    .bdrv_co_preadv = driver_co_preadv,
    .bdrv_co_pwritev = driver_co_pwritev,
    .bdrv_co_flush_to_disk = driver_co_flush,
    .bdrv_co_pwrite_zeroes = driver_co_pwrite_zeroes,
    .bdrv_co_pdiscard = driver_co_pdiscard,
    .bdrv_co_block_status = driver_co_block_status,
    .bdrv_co_truncate = driver_co_truncate,
    .bdrv_co_invalidate_cache = driver_co_invalidate_cache,
#if QEMU_VERSION_MAJOR >= 8
    .bdrv_co_getlength = driver_getlength,
    .bdrv_co_get_info = driver_get_info,
#else
    .bdrv_getlength = driver_getlength,
    .bdrv_get_info = driver_get_info,
#endif
#if QEMU_VERSION_MAJOR < 10
    .has_variable_length = true,
#endif
};

static void register_driver(void)
{
    bdrv_register(&bdrv_vitastor);
}

#ifdef VITASTOR_IN_QEMU
block_init(register_driver);
#else
/* QEMU calls what is registered when its block layer starts. Preloaded into another program, this finds no QEMU and does nothing. */
static void __attribute__((constructor)) on_load(void)
{
    if (dlsym(RTLD_DEFAULT, "register_module_init"))
        register_module_init(register_driver, MODULE_INIT_BLOCK);
}
#endif
