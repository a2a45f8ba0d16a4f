/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fio engine over libvitastor. Threads only: a ring does not survive fork(), so a job without -thread is made a thread.
 * Everything queued between two getevents() leaves in one go; getevents() is the only place that enters the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fio.h"
#include "optgroup.h"
#include "vitastor.h"

struct vitastor_fio_options {
    void *pad; /* fio takes offset 0 for "no option" */
    char *conf;
    char *etcd;
    char *etcd_prefix;
    char *image;
    unsigned int pool;
    unsigned long long inode;
    unsigned int cluster_log_level;
    unsigned int osd_trace;
    char *mirror_file;
    int use_rdma;
    char *rdma_device;
    unsigned int rdma_port_num;
    unsigned int rdma_gid_index;
    unsigned int rdma_mtu;
    unsigned int no_io_uring;
};

struct vitastor_fio {
    vitastor_cluster *cluster;
    vitastor_context *context;
    vitastor_image *image;
    int mirror_fd;
    struct io_u **completed; /* ring of ring_size */
    unsigned int ring_size;
    unsigned int head; /* first that event() may give out */
    unsigned int tail;
};

#define OPTION(name_, type_, field_, help_) \
    .name = name_, .lname = "vitastor " name_, .type = type_, \
    .off1 = offsetof(struct vitastor_fio_options, field_), .help = help_, \
    .category = FIO_OPT_C_ENGINE, .group = FIO_OPT_G_FILENAME

static struct fio_option options[] = {
    { OPTION("conf", FIO_OPT_STR_STORE, conf, "Configuration file (default /etc/vitastor/vitastor.conf)"),
      .alias = "config_path" },
    { OPTION("etcd", FIO_OPT_STR_STORE, etcd, "etcd addresses, comma separated") },
    { OPTION("etcd_prefix", FIO_OPT_STR_STORE, etcd_prefix, "Prefix of the cluster's keys (default /vitastor)") },
    { OPTION("image", FIO_OPT_STR_STORE, image, "Image by name") },
    { OPTION("pool", FIO_OPT_INT, pool, "Pool number, with inode instead of image") },
    { OPTION("inode", FIO_OPT_STR_VAL, inode, "Inode number, with pool instead of image") },
    { OPTION("cluster_log_level", FIO_OPT_INT, cluster_log_level, "Messages of the client library"), .def = "0" },
    { OPTION("osd_trace", FIO_OPT_BOOL, osd_trace, "Accepted, no effect"), .def = "0" },
    { OPTION("mirror_file", FIO_OPT_STR_STORE, mirror_file, "Also write everything to this file") },
    { OPTION("use_rdma", FIO_OPT_INT, use_rdma, "Accepted, no effect: TCP is used"), .def = "-1", .minval = -1, .maxval = 1 },
    { OPTION("rdma_device", FIO_OPT_STR_STORE, rdma_device, "Accepted, no effect") },
    { OPTION("rdma_port_num", FIO_OPT_INT, rdma_port_num, "Accepted, no effect"), .def = "0" },
    { OPTION("rdma_gid_index", FIO_OPT_INT, rdma_gid_index, "Accepted, no effect"), .def = "0" },
    { OPTION("rdma_mtu", FIO_OPT_INT, rdma_mtu, "Accepted, no effect"), .def = "0" },
    { OPTION("no_io_uring", FIO_OPT_BOOL, no_io_uring, "Accepted: io_uring is left by itself where it is refused"), .def = "0" },
    { .name = NULL },
};

struct waiting {
    int done;
    int64_t result;
};

static void on_waited(void *arg, int64_t result, uint64_t version)
{
    struct waiting *waiting = arg;
    (void)version;
    waiting->done = 1;
    waiting->result = result;
}

static int open_context(struct thread_data *td, struct vitastor_fio *engine)
{
    struct vitastor_fio_options *o = td->eo;
    struct vitastor_context_options context_options = { .struct_size = sizeof(context_options) };
    struct vitastor_image_options image_options = { .struct_size = sizeof(image_options) };
    struct waiting waiting = { 0 };
    int r = vitastor_context_open(engine->cluster, &context_options, &engine->context);
    if (r) {
        log_err("vitastor: cannot start the client: %s\n", strerror(-r));
        return 1;
    }
    image_options.image = o->image;
    image_options.pool = o->image ? 0 : o->pool;
    image_options.inode = o->image ? 0 : o->inode;
    image_options.read_only = read_only;
    image_options.writeback = !td->o.odirect; /* and client_enable_writeback in the configuration */
    r = vitastor_image_open(engine->context, &image_options, &engine->image, on_waited, &waiting);
    while (!r && !waiting.done && !td->terminate)
        vitastor_context_run(engine->context, 100);
    if (!r && waiting.done)
        r = (int)waiting.result;
    else if (!r)
        r = -EINTR;
    if (!r)
        return 0;
    if (o->image)
        log_err("vitastor: cannot open image %s: %s\n", o->image, strerror(-r));
    else
        log_err("vitastor: cannot open inode %llu of pool %u: %s\n", o->inode, o->pool, strerror(-r));
    if (engine->image) {
        if (!waiting.done) { /* the open is still under way and ends with the context */
            vitastor_context_close(engine->context);
            engine->context = NULL;
            engine->image = NULL;
            return 1;
        }
        vitastor_image_close(engine->image);
        engine->image = NULL;
    }
    vitastor_context_close(engine->context);
    engine->context = NULL;
    return 1;
}

static void close_context(struct vitastor_fio *engine)
{
    if (engine->image)
        vitastor_image_close(engine->image);
    if (engine->context)
        vitastor_context_close(engine->context);
    engine->image = NULL;
    engine->context = NULL;
}

static int open_cluster(struct thread_data *td, struct vitastor_fio *engine)
{
    struct vitastor_fio_options *o = td->eo;
    struct vitastor_option pairs[3];
    struct vitastor_cluster_options cluster_options = { .struct_size = sizeof(cluster_options) };
    char log_level[16];
    size_t count = 0;
    if (o->etcd)
        pairs[count++] = (struct vitastor_option){ "etcd_address", o->etcd };
    if (o->etcd_prefix)
        pairs[count++] = (struct vitastor_option){ "etcd_prefix", o->etcd_prefix };
    if (o->cluster_log_level) {
        snprintf(log_level, sizeof(log_level), "%u", o->cluster_log_level);
        pairs[count++] = (struct vitastor_option){ "log_level", log_level };
    }
    cluster_options.config_path = o->conf;
    cluster_options.options = pairs;
    cluster_options.option_count = count;
    cluster_options.fail_fast = 1;
    if (vitastor_cluster_open(&cluster_options, &engine->cluster)) {
        log_err("vitastor: cannot join the cluster: give etcd=host:port, or conf=FILE with etcd_address in it\n");
        return 1;
    }
    return 0;
}

static void engine_cleanup(struct thread_data *td);

static int engine_set_up(struct thread_data *td)
{
    struct vitastor_fio_options *o = td->eo;
    struct vitastor_fio *engine = td->io_ops_data;
    struct fio_file *file;
    uint64_t size;
    if (!td->o.use_thread && !td->o.create_serialize) {
        log_err("vitastor: this engine works in threads only: add -thread (thread=1) to the job\n");
        return 1;
    }
    /* A ring does not survive fork(). We are still in the main thread (create_serialize), so the job can become a thread. */
    td->o.use_thread = 1;
    if (o->image ? (o->pool || o->inode) : (!o->pool || !o->inode)) {
        log_err("vitastor: give either image=NAME, or pool=N and inode=N\n");
        return 1;
    }
    if (!engine) {
        engine = calloc(1, sizeof(*engine));
        if (!engine)
            return 1;
        engine->mirror_fd = -1;
        td->io_ops_data = engine;
        if (open_cluster(td, engine))
            return 1;
    }
    if (open_context(td, engine))
        return 1;
    size = vitastor_image_size(engine->image);
    if ((td_write(td) || td_trim(td)) && vitastor_image_read_only(engine->image)) {
        log_err("vitastor: image %s is read-only, and the job writes: take the image that stands on this layer, or `vitastor-cli modify %s --readwrite`\n",
                o->image ? o->image : "given by number", o->image ? o->image : "NAME");
        return 1;
    }
    close_context(engine);
    if (!size)
        size = td->o.size;
    if (!size) {
        log_err("vitastor: the size is not known: give size=BYTES for an inode without metadata\n");
        return 1;
    }
    if (!td->files_index) {
        add_file(td, td->o.filename ? td->o.filename : "vitastor", 0, 0);
        td->o.nr_files = td->o.nr_files ? td->o.nr_files : 1;
        td->o.open_files++;
    }
    file = td->files[0];
    file->real_file_size = size;
    return 0;
}

/*
 * In fio's main thread: checks the options and learns the size. When it fails, fio unloads us without calling cleanup: no thread of the library
 * may be left behind then.
 */
static int engine_setup(struct thread_data *td)
{
    int r = engine_set_up(td);
    if (r)
        engine_cleanup(td);
    return r;
}

static int engine_init(struct thread_data *td)
{
    struct vitastor_fio_options *o = td->eo;
    struct vitastor_fio *engine = td->io_ops_data;
    engine->ring_size = td->o.iodepth + 1;
    engine->completed = calloc(engine->ring_size, sizeof(*engine->completed));
    if (!engine->completed || open_context(td, engine))
        return 1;
    if (o->mirror_file) {
        engine->mirror_fd = open(o->mirror_file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (engine->mirror_fd < 0) {
            log_err("vitastor: cannot open mirror_file %s: %s\n", o->mirror_file, strerror(errno));
            return 1;
        }
    }
    return 0;
}

static void engine_cleanup(struct thread_data *td)
{
    struct vitastor_fio *engine = td->io_ops_data;
    if (!engine)
        return;
    close_context(engine);
    if (engine->cluster)
        vitastor_cluster_close(engine->cluster);
    if (engine->mirror_fd >= 0)
        close(engine->mirror_fd);
    free(engine->completed);
    free(engine);
    td->io_ops_data = NULL;
}

static void on_done(void *arg, int64_t result, uint64_t version)
{
    struct io_u *io_u = arg;
    struct vitastor_fio *engine = io_u->engine_data;
    (void)version;
    io_u->error = result < 0 ? (unsigned int)-result : 0;
    io_u->resid = result < 0 ? io_u->xfer_buflen : 0;
    engine->completed[engine->tail] = io_u;
    engine->tail = engine->tail + 1 == engine->ring_size ? 0 : engine->tail + 1;
}

static enum fio_q_status engine_queue(struct thread_data *td, struct io_u *io_u)
{
    struct vitastor_fio *engine = td->io_ops_data;
    struct iovec iov = { io_u->xfer_buf, io_u->xfer_buflen };
    int r;
    fio_ro_check(td, io_u);
    io_u->engine_data = engine;
    switch (io_u->ddir) {
    case DDIR_READ:
        r = vitastor_read(engine->image, engine->context, io_u->offset, io_u->xfer_buflen, &iov, 1, on_done, io_u);
        break;
    case DDIR_WRITE:
        if (engine->mirror_fd >= 0 &&
            pwrite(engine->mirror_fd, io_u->xfer_buf, io_u->xfer_buflen, (off_t)io_u->offset) != (ssize_t)io_u->xfer_buflen) {
            r = -EIO;
            break;
        }
        r = vitastor_write(engine->image, engine->context, io_u->offset, io_u->xfer_buflen, &iov, 1, on_done, io_u);
        break;
    case DDIR_SYNC:
    case DDIR_DATASYNC:
    case DDIR_SYNC_FILE_RANGE:
        r = vitastor_flush(engine->image, engine->context, on_done, io_u);
        break;
    case DDIR_TRIM:
        r = vitastor_discard(engine->image, engine->context, io_u->offset, io_u->xfer_buflen, on_done, io_u);
        break;
    default:
        r = -EINVAL;
    }
    if (!r)
        return FIO_Q_QUEUED;
    if (r == -EINVAL)
        log_err("vitastor: offset %llu and length %llu must be multiples of %u\n", (unsigned long long)io_u->offset,
            (unsigned long long)io_u->xfer_buflen, vitastor_image_granularity(engine->image));
    io_u->error = -r;
    io_u->resid = io_u->xfer_buflen;
    return FIO_Q_COMPLETED;
}

static unsigned int ready(struct vitastor_fio *engine)
{
    return engine->tail >= engine->head ? engine->tail - engine->head : engine->tail + engine->ring_size - engine->head;
}

/* What the last call has reported is given out by event() in order, so head moves there. */
static int engine_getevents(struct thread_data *td, unsigned int min, unsigned int max, const struct timespec *t)
{
    struct vitastor_fio *engine = td->io_ops_data;
    int timeout_ms = t ? (int)(t->tv_sec * 1000 + (t->tv_nsec + 999999) / 1000000) : -1;
    unsigned int count;
    if (!min)
        vitastor_context_run(engine->context, 0);
    while (ready(engine) < min) {
        int r = vitastor_context_run(engine->context, timeout_ms);
        if (r < 0)
            return r;
        if (t && !r)
            break;
    }
    count = ready(engine);
    return (int)(count > max ? max : count);
}

static struct io_u *engine_event(struct thread_data *td, int event)
{
    struct vitastor_fio *engine = td->io_ops_data;
    struct io_u *io_u = engine->completed[engine->head];
    (void)event;
    engine->head = engine->head + 1 == engine->ring_size ? 0 : engine->head + 1;
    return io_u;
}

static int engine_open_file(struct thread_data *td, struct fio_file *file)
{
    (void)td;
    (void)file;
    return 0;
}

static int engine_invalidate(struct thread_data *td, struct fio_file *file)
{
    (void)td;
    (void)file;
    return 0;
}

__attribute__((visibility("default"))) struct ioengine_ops ioengine = {
    .name = "vitastor_cluster",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO | FIO_NOEXTEND,
    .setup = engine_setup,
    .init = engine_init,
    .queue = engine_queue,
    .getevents = engine_getevents,
    .event = engine_event,
    .cleanup = engine_cleanup,
    .open_file = engine_open_file,
    .close_file = engine_open_file,
    .invalidate = engine_invalidate,
    .options = options,
    .option_struct_size = sizeof(struct vitastor_fio_options),
};
