/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's headers, and what differs between its versions. Compiled against 7.2 and 10.0.
 *
 * Used are functions only: no variable of QEMU, so that the library loads into any process and does nothing in those that are no QEMU; and no member
 * of AioContext, whose layout depends on how QEMU was configured.
 */
#ifndef VITASTOR_QEMU_COMPAT_H
#define VITASTOR_QEMU_COMPAT_H

#include "qemu/osdep.h"

#include "block/aio-wait.h"
#include "block/aio.h"
#include "block/block.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "qemu/queue.h"
#if QEMU_VERSION_MAJOR >= 10
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#else
#include "qapi/qmp/qdict.h"
#include "qapi/qmp/qstring.h"
#endif
#include "qemu/coroutine.h"

/* ERRP_GUARD() compares with its address. */
#pragma weak error_fatal

/* The lock of an AioContext went away in 9.0. */
#if QEMU_VERSION_MAJOR >= 9
#define VITASTOR_AIO_LOCKS 0
#else
#define VITASTOR_AIO_LOCKS 1
#endif

/* on_poll says whether on_read has something to do; an I/O thread asks for a while before it sleeps, if all of its handlers can be asked. */
static inline void vitastor_set_fd_handler(AioContext *aio, int fd, IOHandler *on_read, AioPollFn *on_poll, void *opaque)
{
#if VITASTOR_AIO_LOCKS
    aio_set_fd_handler(aio, fd, false, on_read, NULL, on_poll, on_read, opaque);
#else
    aio_set_fd_handler(aio, fd, on_read, NULL, on_poll, on_read, opaque);
#endif
}

#endif
