/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vitastor: file names and options.
 */
#include "options.h"

static const char *const known_keys[] = {
    "image", "inode", "pool", "size", "config-path", "etcd-host", "etcd-prefix", "skip-parents",
    "use-rdma", "rdma-device", "rdma-port-num", "rdma-gid-index", "rdma-mtu",
};

const char *const vitastor_strong_options[] = {
    "image", "inode", "pool", "size", "config-path", "etcd-host", "etcd-prefix", "skip-parents", NULL,
};

/* Words that other tools use, or used to. */
static const struct {
    const char *said;
    const char *meant;
} other_words[] = {
    { "etcd", "etcd-host" }, { "etcd-address", "etcd-host" }, { "host", "etcd-host" }, { "prefix", "etcd-prefix" },
    { "conf", "config-path" }, { "config", "config-path" }, { "name", "image" }, { "img", "image" },
};

#define MAX_KEY 32

/* Steps (insert, delete, change) from one word to the other; both shorter than MAX_KEY. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[MAX_KEY + 1];
    size_t a_length = strlen(a), b_length = strlen(b);
    for (size_t j = 0; j <= b_length; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_length];
}

static const char *guess(const char *key)
{
    const char *best = NULL;
    unsigned best_distance = 3; /* two slips at most */
    if (strlen(key) >= MAX_KEY)
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(other_words); i++) {
        if (!strcmp(key, other_words[i].said))
            return other_words[i].meant;
    }
    for (size_t i = 0; i < ARRAY_SIZE(known_keys); i++) {
        unsigned steps = distance(key, known_keys[i]);
        if (steps < best_distance) {
            best_distance = steps;
            best = known_keys[i];
        }
    }
    return best;
}

static void put_option(QDict *options, char *key, const char *value, Error **errp)
{
    const char *meant;
    for (char *at = key; *at; at++) {
        if (*at == '_')
            *at = '-';
    }
    for (size_t i = 0; i < ARRAY_SIZE(known_keys); i++) {
        if (strcmp(key, known_keys[i]))
            continue;
        if (qdict_haskey(options, key)) {
            error_setg(errp, "vitastor: option '%s' is given twice", key);
            return;
        }
        if (strncmp(key, "rdma-", 5) && strcmp(key, "use-rdma")) /* those have no effect: TCP is used */
            qdict_put_str(options, key, value);
        return;
    }
    meant = guess(key);
    error_setg(errp, "vitastor: unknown option '%s' in the file name%s%s%s", key, meant ? ": did you mean '" : "", meant ? meant : "",
        meant ? "'?" : "");
    error_append_hint(errp, "Options: image, or pool, inode and size; etcd-host, etcd-prefix, config-path; skip-parents.\n");
}

static void put_pair(QDict *options, GString *pair, bool percent, Error **errp)
{
    char *equal = strchr(pair->str, '=');
    g_autofree char *key = NULL;
    g_autofree char *value = NULL;
    if (!equal) {
        error_setg(errp, "vitastor: '%s' in the file name is no key=value: did you mean 'vitastor:image=%s'?", pair->str, pair->str);
        return;
    }
    key = g_strndup(pair->str, equal - pair->str);
    value = percent ? g_uri_unescape_string(equal + 1, NULL) : g_strdup(equal + 1);
    if (!value) {
        error_setg(errp, "vitastor: the value of '%s' in the file name has a broken %%-escape: '%s'", key, equal + 1);
        return;
    }
    put_option(options, key, value, errp);
}

void vitastor_parse_filename(const char *filename, QDict *options, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(GString) pair = g_string_new("");
    const char *at;
    bool uri;
    if (!strstart(filename, "vitastor:", &at)) {
        error_setg(errp, "vitastor: the file name must begin with 'vitastor:'");
        return;
    }
    uri = strstart(at, "//", &at);
    if (uri && *at && *at++ != '?') {
        error_setg(errp, "vitastor: after 'vitastor://' comes '?key=value&key=value...'");
        return;
    }
    for (;; at++) {
        if (*at == 0 || *at == (uri ? '&' : ':')) {
            if (pair->len)
                put_pair(options, pair, uri, errp);
            if (*errp || !*at)
                return;
            g_string_truncate(pair, 0);
        } else {
            if (!uri && *at == '\\' && (at[1] == ':' || at[1] == '\\'))
                at++;
            g_string_append_c(pair, *at);
        }
    }
}

static QemuOptsList runtime_options = {
    .name = "vitastor",
    .head = QTAILQ_HEAD_INITIALIZER(runtime_options.head),
    .desc = {
        { .name = "image", .type = QEMU_OPT_STRING, .help = "Image by name" },
        { .name = "inode", .type = QEMU_OPT_NUMBER, .help = "Inode number, instead of image" },
        { .name = "pool", .type = QEMU_OPT_NUMBER, .help = "Pool number, with inode" },
        { .name = "size", .type = QEMU_OPT_SIZE, .help = "Size, with inode" },
        { .name = "config-path", .type = QEMU_OPT_STRING, .help = "Configuration file (default /etc/vitastor/vitastor.conf)" },
        { .name = "etcd-host", .type = QEMU_OPT_STRING, .help = "Addresses of etcd, comma separated" },
        { .name = "etcd-prefix", .type = QEMU_OPT_STRING, .help = "Prefix of the cluster's keys (default /vitastor)" },
        { .name = "skip-parents", .type = QEMU_OPT_BOOL, .help = "Read this layer alone" },
        { /* end */ },
    },
};

/* As options of -drive: etcd_host for etcd-host, 0 and 1 for off and on. */
static void normalise(QDict *options)
{
    const char *skip;
    for (size_t i = 0; i < ARRAY_SIZE(known_keys); i++) {
        g_autofree char *spelled = g_strdup(known_keys[i]);
        for (char *at = spelled; *at; at++) {
            if (*at == '-')
                *at = '_';
        }
        if (strcmp(spelled, known_keys[i]) && qdict_haskey(options, spelled) && !qdict_haskey(options, known_keys[i])) {
            QObject *value = qobject_ref(qdict_get(options, spelled));
            qdict_put_obj(options, known_keys[i], value);
            qdict_del(options, spelled);
        }
        if (!strncmp(known_keys[i], "rdma-", 5) || !strcmp(known_keys[i], "use-rdma"))
            qdict_del(options, known_keys[i]);
    }
    skip = qdict_get_try_str(options, "skip-parents");
    if (skip && (!strcmp(skip, "1") || !strcmp(skip, "true")))
        qdict_put_str(options, "skip-parents", "on");
    else if (skip && (!strcmp(skip, "0") || !strcmp(skip, "false")))
        qdict_put_str(options, "skip-parents", "off");
}

int vitastor_take_options(QDict *options, VitastorOptions *out, Error **errp)
{
    ERRP_GUARD();
    QemuOpts *opts;
    memset(out, 0, sizeof(*out));
    normalise(options);
    opts = qemu_opts_create(&runtime_options, NULL, 0, errp);
    if (!opts)
        return -EINVAL;
    if (qemu_opts_absorb_qdict(opts, options, errp)) {
        out->image = g_strdup(qemu_opt_get(opts, "image"));
        out->inode = qemu_opt_get_number(opts, "inode", 0);
        out->pool = qemu_opt_get_number(opts, "pool", 0);
        out->size = qemu_opt_get_size(opts, "size", 0);
        out->config_path = g_strdup(qemu_opt_get(opts, "config-path"));
        out->etcd_host = g_strdup(qemu_opt_get(opts, "etcd-host"));
        out->etcd_prefix = g_strdup(qemu_opt_get(opts, "etcd-prefix"));
        out->skip_parents = qemu_opt_get_bool(opts, "skip-parents", false);
        if (out->image && (out->inode || out->pool))
            error_setg(errp, "vitastor: give either image, or inode and pool, not both");
        else if (out->image && !*out->image)
            error_setg(errp, "vitastor: image= is empty");
        else if (!out->image && !out->inode)
            error_setg(errp, "vitastor: no image given: image=NAME, or pool=N, inode=N and size=BYTES");
        else if (!out->image && !out->pool && !(out->inode >> 48))
            error_setg(errp, "vitastor: inode=%" PRIu64 " needs its pool: pool=N", out->inode);
        else if (!out->image && out->size % 512)
            error_setg(errp, "vitastor: size=%" PRIu64 " is no multiple of 512", out->size);
    }
    qemu_opts_del(opts);
    if (!*errp)
        return 0;
    vitastor_clear_options(out);
    return -EINVAL;
}

void vitastor_clear_options(VitastorOptions *options)
{
    g_free(options->image);
    g_free(options->config_path);
    g_free(options->etcd_host);
    g_free(options->etcd_prefix);
    memset(options, 0, sizeof(*options));
}

static void append(GString *to, const char *key, const char *value)
{
    if (!value)
        return;
    g_string_append_printf(to, "%s%s=", to->str[to->len - 1] == '?' ? "" : "&", key);
    g_string_append_uri_escaped(to, value, "/:@,", true);
}

static void append_number(GString *to, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    append(to, key, value ? text : NULL);
}

void vitastor_make_filename(const VitastorOptions *options, char *out, size_t out_size)
{
    g_autoptr(GString) name = g_string_new("vitastor://?");
    append(name, "image", options->image);
    append_number(name, "inode", options->inode);
    append_number(name, "pool", options->pool);
    append_number(name, "size", options->image ? 0 : options->size);
    append(name, "config_path", options->config_path);
    append(name, "etcd_host", options->etcd_host);
    append(name, "etcd_prefix", options->etcd_prefix);
    append(name, "skip_parents", options->skip_parents ? "1" : NULL);
    if (name->len < out_size)
        memcpy(out, name->str, name->len + 1);
    else
        *out = 0;
}

char *vitastor_describe(const VitastorOptions *options)
{
    uint64_t number = options->inode & ((UINT64_C(1) << 48) - 1);
    if (options->image)
        return g_strdup_printf("image %s", options->image);
    return g_strdup_printf("inode %" PRIu64 " of pool %" PRIu64, number, options->pool ? options->pool : options->inode >> 48);
}
