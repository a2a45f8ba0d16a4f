/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A queue: one context of libvitastor in one event loop (AioContext) of QEMU. Requests of coroutines go in and wake them when they are done.
 */
#ifndef VITASTOR_QEMU_QUEUE_H
#define VITASTOR_QEMU_QUEUE_H

#include "qemu_compat.h"
#include "vitastor.h"

typedef struct VitastorQueue VitastorQueue;
typedef struct VitastorQueues VitastorQueues;

typedef enum VitastorRequestKind {
    VITASTOR_REQUEST_READ,
    VITASTOR_REQUEST_WRITE,
    VITASTOR_REQUEST_FLUSH,
    VITASTOR_REQUEST_DISCARD,
    VITASTOR_REQUEST_BITMAP,
} VitastorRequestKind;

/* On the stack of the coroutine that makes it. */
typedef struct VitastorRequest {
    VitastorRequestKind kind;
    vitastor_image *image;
    uint64_t offset; /* bytes */
    uint64_t bytes;
    QEMUIOVector *qiov; /* read, write */
    uint8_t *bitmap;    /* bitmap */
    /* the queue's own */
    VitastorQueue *queue;
    Coroutine *co;
    int64_t result;
    bool done;
    QSIMPLEQ_ENTRY(VitastorRequest) next;
} VitastorRequest;

/* Of one node. run_fn: after the context of the main loop has run, in the main loop's thread. */
VitastorQueues *vitastor_queues_new(vitastor_cluster *cluster, void (*run_fn)(void *opaque), void *opaque);
/* In the main thread: opens the main loop's queue. Returns its context, or NULL (*error: negative errno). */
vitastor_context *vitastor_queues_open(VitastorQueues *queues, int *error);
/* The main loop begins to watch its queue; before that the caller runs the context itself. */
void vitastor_queues_start(VitastorQueues *queues);
/* Main thread, no request in flight: closes the queue of another event loop, if there is one, in its own thread. */
void vitastor_queues_detach(VitastorQueues *queues, AioContext *aio);
/* Main thread, no request in flight: closes all but the main loop's. */
void vitastor_queues_detach_all(VitastorQueues *queues);
/* Main thread, images closed, no request in flight. */
void vitastor_queues_free(VitastorQueues *queues);

/* Runs a request to its end in the event loop of the calling coroutine. Returns its result (vitastor.h), or negative errno. */
int64_t coroutine_fn vitastor_queues_run(VitastorQueues *queues, VitastorRequest *request);

#endif
