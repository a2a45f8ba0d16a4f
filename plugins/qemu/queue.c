/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Contexts of libvitastor in QEMU's event loops.
 *
 * A context belongs to one thread (its ring takes requests from no other). Each event loop from which requests come gets a queue of its own, opened by
 * the first request there and closed in that thread when the node leaves the event loop. QEMU 7.2 moves a node from one event loop to another; 10.0 sends
 * requests of one node from several at a time.
 *
 * A request is queued, and leaves with all others of the same turn of the event loop; a lone one leaves at once. Coroutines are woken after the context
 * has run, never from inside it, so that whatever they do (new requests, nested event loops) finds the context at rest.
 */
#include "queue.h"

#include <sys/timerfd.h>

#define MAX_ROUNDS 8 /* of running and waking before the event loop has its turn again */

struct VitastorQueue {
    VitastorQueues *queues;
    AioContext *aio;
    pthread_t thread;
    vitastor_context *context;
    int fd;
    int timer_fd;
    int64_t timer_ms; /* when timer_fd fires, of CLOCK_MONOTONIC; 0: never */
    QEMUBH *kick;     /* runs the context */
    unsigned in_flight;
    unsigned refs;    /* the list's and those of functions at work */
    bool watched;
    bool pending;     /* requests were queued since the context ran */
    bool processing;
    QSIMPLEQ_HEAD(, VitastorRequest) done;
    QSLIST_ENTRY(VitastorQueue) next;
};

struct VitastorQueues {
    vitastor_cluster *cluster;
    void (*run_fn)(void *opaque);
    void *opaque;
    VitastorQueue *main;
    pthread_mutex_t lock; /* of the list: requests of several event loops look their queue up */
    QSLIST_HEAD(, VitastorQueue) list;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void queue_unref(VitastorQueue *queue)
{
    if (--queue->refs == 0)
        g_free(queue);
}

/* When the context wants to run next. A timer that fires too early costs one turn, so it is only ever set to something earlier. */
static void queue_arm_timer(VitastorQueue *queue)
{
    int timeout = vitastor_context_next_timeout(queue->context);
    struct itimerspec spec = { 0 };
    int64_t at;
    if (timeout < 0)
        return;
    if (timeout == 0) {
        qemu_bh_schedule(queue->kick);
        return;
    }
    at = now_ms() + timeout;
    if (queue->timer_ms && queue->timer_ms <= at)
        return;
    queue->timer_ms = at;
    spec.it_value.tv_sec = at / 1000;
    spec.it_value.tv_nsec = at % 1000 * 1000000;
    timerfd_settime(queue->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void queue_run_context(VitastorQueue *queue)
{
    queue->pending = false;
    vitastor_context_run(queue->context, 0);
}

/* In the queue's thread, outside of coroutines and of the context. */
static void queue_process(VitastorQueue *queue)
{
    bool nested = queue->processing; /* an event loop inside what a coroutine that we have woken does */
    queue->processing = true;
    queue->refs++;
    /* What the coroutines want next leaves together with what the context does by itself. */
    vitastor_context_collect(queue->context);
    for (int round = 0; round < MAX_ROUNDS && queue->context; round++) {
        while (!QSIMPLEQ_EMPTY(&queue->done)) {
            VitastorRequest *request = QSIMPLEQ_FIRST(&queue->done);
            QSIMPLEQ_REMOVE_HEAD(&queue->done, next);
            request->done = true;
            aio_co_wake(request->co);
        }
        if (!queue->context)
            break;
        queue_run_context(queue);
        if (QSIMPLEQ_EMPTY(&queue->done))
            break;
    }
    queue->processing = nested;
    if (queue->context) {
        if (queue->pending || !QSIMPLEQ_EMPTY(&queue->done))
            qemu_bh_schedule(queue->kick);
        queue_arm_timer(queue);
        if (queue == queue->queues->main)
            queue->queues->run_fn(queue->queues->opaque);
    }
    queue_unref(queue);
}

static void queue_on_ready(void *opaque)
{
    queue_process(opaque);
}

static void queue_on_timer(void *opaque)
{
    VitastorQueue *queue = opaque;
    uint64_t count;
    if (read(queue->timer_fd, &count, sizeof(count)) == sizeof(count))
        queue->timer_ms = 0;
    queue_process(queue);
}

static bool queue_poll_ready(void *opaque)
{
    VitastorQueue *queue = opaque;
    return vitastor_context_ready(queue->context) > 0;
}

static bool queue_poll_timer(void *opaque)
{
    VitastorQueue *queue = opaque;
    return queue->timer_ms && now_ms() >= queue->timer_ms;
}

/* In the thread of the event loop. */
static VitastorQueue *queue_new(VitastorQueues *queues, AioContext *aio, int *error)
{
    struct vitastor_context_options options = { .struct_size = sizeof(options) };
    VitastorQueue *queue = g_new0(VitastorQueue, 1);
    queue->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    *error = queue->timer_fd < 0 ? -errno : vitastor_context_open(queues->cluster, &options, &queue->context);
    if (*error) {
        if (queue->timer_fd >= 0)
            close(queue->timer_fd);
        g_free(queue);
        return NULL;
    }
    queue->queues = queues;
    queue->aio = aio;
    queue->thread = pthread_self();
    queue->fd = vitastor_context_fd(queue->context);
    queue->kick = aio_bh_new(aio, queue_on_ready, queue);
    queue->refs = 1;
    QSIMPLEQ_INIT(&queue->done);
    return queue;
}

static void queue_watch(VitastorQueue *queue)
{
    queue->watched = true;
    vitastor_set_fd_handler(queue->aio, queue->fd, queue_on_ready, queue_poll_ready, queue);
    vitastor_set_fd_handler(queue->aio, queue->timer_fd, queue_on_timer, queue_poll_timer, queue);
    qemu_bh_schedule(queue->kick);
}

/* In the queue's thread; it is on no list any more. */
static void queue_close(VitastorQueue *queue)
{
    if (queue->watched) {
        vitastor_set_fd_handler(queue->aio, queue->fd, NULL, NULL, NULL);
        vitastor_set_fd_handler(queue->aio, queue->timer_fd, NULL, NULL, NULL);
    }
    qemu_bh_delete(queue->kick);
    vitastor_context_close(queue->context);
    queue->context = NULL;
    close(queue->timer_fd);
    queue_unref(queue);
}

typedef struct CloseThere {
    VitastorQueue *queue;
    sem_t done;
} CloseThere;

static void queue_close_there(void *opaque)
{
    CloseThere *there = opaque;
    queue_close(there->queue);
    sem_post(&there->done);
}

/*
 * The thread of the event loop closes it, this one waits. QEMU 7.2 forbids to run an event loop here and holds the lock of the other event loop, which a
 * handler there may be waiting for: given back meanwhile.
 */
static void queue_close_remote(VitastorQueue *queue)
{
    CloseThere there = { .queue = queue };
    AioContext *aio = queue->aio;
    if (pthread_equal(queue->thread, pthread_self())) {
        queue_close(queue);
        return;
    }
    sem_init(&there.done, 0, 0);
    aio_bh_schedule_oneshot(aio, queue_close_there, &there);
#if VITASTOR_AIO_LOCKS
    aio_context_release(aio);
#endif
    while (sem_wait(&there.done) && errno == EINTR)
        continue;
#if VITASTOR_AIO_LOCKS
    aio_context_acquire(aio);
#endif
    sem_destroy(&there.done);
}

VitastorQueues *vitastor_queues_new(vitastor_cluster *cluster, void (*run_fn)(void *opaque), void *opaque)
{
    VitastorQueues *queues = g_new0(VitastorQueues, 1);
    queues->cluster = cluster;
    queues->run_fn = run_fn;
    queues->opaque = opaque;
    pthread_mutex_init(&queues->lock, NULL);
    return queues;
}

vitastor_context *vitastor_queues_open(VitastorQueues *queues, int *error)
{
    queues->main = queue_new(queues, qemu_get_aio_context(), error);
    if (!queues->main)
        return NULL;
    QSLIST_INSERT_HEAD(&queues->list, queues->main, next);
    return queues->main->context;
}

void vitastor_queues_start(VitastorQueues *queues)
{
    queue_watch(queues->main);
}

static VitastorQueue *take_queue(VitastorQueues *queues, AioContext *aio)
{
    VitastorQueue *queue;
    pthread_mutex_lock(&queues->lock);
    QSLIST_FOREACH(queue, &queues->list, next) {
        if (queue != queues->main && (!aio || queue->aio == aio)) {
            QSLIST_REMOVE(&queues->list, queue, VitastorQueue, next);
            break;
        }
    }
    pthread_mutex_unlock(&queues->lock);
    return queue;
}

void vitastor_queues_detach(VitastorQueues *queues, AioContext *aio)
{
    VitastorQueue *queue = take_queue(queues, aio);
    if (queue)
        queue_close_remote(queue);
}

void vitastor_queues_detach_all(VitastorQueues *queues)
{
    VitastorQueue *queue;
    while ((queue = take_queue(queues, NULL)))
        queue_close_remote(queue);
}

void vitastor_queues_free(VitastorQueues *queues)
{
    if (queues->main)
        queue_close(queues->main);
    pthread_mutex_destroy(&queues->lock);
    g_free(queues);
}

/* ---- requests */

static void on_done(void *arg, int64_t result, uint64_t version)
{
    VitastorRequest *request = arg;
    (void)version;
    request->result = result;
    request->queue->in_flight--;
    QSIMPLEQ_INSERT_TAIL(&request->queue->done, request, next);
}

static int request_start(VitastorRequest *request)
{
    vitastor_context *context = request->queue->context;
    switch (request->kind) {
    case VITASTOR_REQUEST_READ:
        return vitastor_read(request->image, context, request->offset, request->bytes, request->qiov->iov,
            request->qiov->niov, on_done, request);
    case VITASTOR_REQUEST_WRITE:
        return vitastor_write(request->image, context, request->offset, request->bytes, request->qiov->iov,
            request->qiov->niov, on_done, request);
    case VITASTOR_REQUEST_FLUSH:
        return vitastor_flush(request->image, context, on_done, request);
    case VITASTOR_REQUEST_DISCARD:
        return vitastor_discard(request->image, context, request->offset, request->bytes, on_done, request);
    case VITASTOR_REQUEST_BITMAP:
        return vitastor_read_bitmap(request->image, context, request->offset, request->bytes, request->bitmap, on_done,
            request);
    }
    return -EINVAL;
}

/* In the queue's thread. 0: on_done will run. */
static int queue_submit(VitastorRequest *request)
{
    VitastorQueue *queue = request->queue;
    int error;
    queue->in_flight++;
    queue->pending = true;
    error = request_start(request);
    if (error) {
        queue->in_flight--;
        return error;
    }
    if (queue->processing)
        return 0; /* it looks at `pending` again */
    if (queue->in_flight == 1) {
        queue_run_context(queue);
        if (QSIMPLEQ_EMPTY(&queue->done)) {
            queue_arm_timer(queue);
            return 0;
        }
    }
    qemu_bh_schedule(queue->kick);
    return 0;
}

static void submit_there(void *opaque)
{
    VitastorRequest *request = opaque;
    int error = queue_submit(request);
    if (error) {
        request->result = error;
        request->done = true;
        aio_co_wake(request->co);
    }
}

/* The queue of the event loop that the caller runs in. */
static VitastorQueue *find_queue(VitastorQueues *queues, int *error)
{
    AioContext *aio = qemu_get_current_aio_context();
    VitastorQueue *queue;
    if (queues->main->aio == aio)
        return queues->main;
    pthread_mutex_lock(&queues->lock);
    QSLIST_FOREACH(queue, &queues->list, next) {
        if (queue->aio == aio)
            break;
    }
    pthread_mutex_unlock(&queues->lock);
    if (queue)
        return queue;
    /* Nobody else opens one for this event loop: it is this thread's. */
    queue = queue_new(queues, aio, error);
    if (!queue)
        return NULL;
    pthread_mutex_lock(&queues->lock);
    QSLIST_INSERT_HEAD(&queues->list, queue, next);
    pthread_mutex_unlock(&queues->lock);
    queue_watch(queue);
    return queue;
}

int64_t coroutine_fn vitastor_queues_run(VitastorQueues *queues, VitastorRequest *request)
{
    int error = 0;
    request->queue = find_queue(queues, &error);
    if (!request->queue)
        return error;
    request->co = qemu_coroutine_self();
    request->done = false;
    if (pthread_equal(request->queue->thread, pthread_self())) {
        error = queue_submit(request);
        if (error)
            return error;
    } else {
        /* A thread of a virtual processor, which counts as the main loop while it holds the big lock. */
        aio_bh_schedule_oneshot(request->queue->aio, submit_there, request);
    }
    while (!request->done)
        qemu_coroutine_yield();
    return request->result;
}
