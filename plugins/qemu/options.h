/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The options of a node, and the file names that stand for them (specification tools.md 10.1).
 */
#ifndef VITASTOR_QEMU_OPTIONS_H
#define VITASTOR_QEMU_OPTIONS_H

#include "qemu_compat.h"

typedef struct VitastorOptions {
    char *image; /* or the three numbers */
    uint64_t pool;
    uint64_t inode;
    uint64_t size; /* bytes; 0: not given */
    char *config_path;
    char *etcd_host;
    char *etcd_prefix;
    bool skip_parents;
} VitastorOptions;

/* vitastor:key=value:... or vitastor://?key=value&..., into options. Errors name the key and what it may be. */
void vitastor_parse_filename(const char *filename, QDict *options, Error **errp);
/* Takes its keys out of `options` and checks them. 0, or -EINVAL with *errp. */
int vitastor_take_options(QDict *options, VitastorOptions *out, Error **errp);
void vitastor_clear_options(VitastorOptions *options);
/* vitastor://?... for people and for backing files: NUL-terminated, cut to nothing where it does not fit. */
void vitastor_make_filename(const VitastorOptions *options, char *out, size_t out_size);
/* "image vm7", or "inode 5 of pool 1". To be freed with g_free. */
char *vitastor_describe(const VitastorOptions *options);

extern const char *const vitastor_strong_options[];

#endif
