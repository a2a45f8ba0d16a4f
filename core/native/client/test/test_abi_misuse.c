/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The C ABI from C99: what must be refused, what must not crash, and that nothing is printed but through log_fn. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vitastor.h"

static int failures;
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static char log_text[65536];

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            failures++;                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
        }                                                                         \
    } while (0)

static void on_log(void *arg, int level, const char *text)
{
    (void)arg;
    (void)level;
    pthread_mutex_lock(&log_mutex);
    if (strlen(log_text) + strlen(text) + 2 < sizeof(log_text)) {
        strcat(log_text, text);
        strcat(log_text, "\n");
    }
    pthread_mutex_unlock(&log_mutex);
}

static int logged(const char *part)
{
    int found;
    pthread_mutex_lock(&log_mutex);
    found = strstr(log_text, part) != NULL;
    pthread_mutex_unlock(&log_mutex);
    return found;
}

struct result {
    int runs;
    int64_t value;
};

static void on_done(void *arg, int64_t result, uint64_t version)
{
    struct result *r = arg;
    (void)version;
    r->runs++;
    r->value = result;
}

static void on_purged(void *arg, int result, const char *json)
{
    struct result *r = arg;
    (void)json;
    r->runs++;
    r->value = result;
}

static void clusters(void)
{
    struct vitastor_cluster_options options;
    struct vitastor_option bad[1];
    struct {
        struct vitastor_cluster_options known;
        uint64_t unknown;
    } longer;
    vitastor_cluster *cluster = NULL, *again = NULL;
    memset(&options, 0, sizeof(options));
    CHECK(vitastor_cluster_open(NULL, &cluster) == -EINVAL);
    CHECK(vitastor_cluster_open(&options, &cluster) == -EINVAL); /* struct_size 0 */
    options.struct_size = sizeof(options);
    options.log_fn = on_log;
    CHECK(vitastor_cluster_open(&options, NULL) == -EINVAL);
    options.option_count = 1;
    CHECK(vitastor_cluster_open(&options, &cluster) == -EINVAL);
    options.option_count = 0;
    options.config_path = "/nonexistent/vitastor.conf";
    CHECK(vitastor_cluster_open(&options, &cluster) == -ENOENT);
    CHECK(logged("/nonexistent/vitastor.conf"));
    options.config_path = "/dev/null";
    CHECK(vitastor_cluster_open(&options, &cluster) == -EINVAL);
    options.config_path = NULL;
    bad[0].name = "etcd_address";
    bad[0].value = "not an address";
    options.options = bad;
    options.option_count = 1;
    CHECK(vitastor_cluster_open(&options, &cluster) == -EINVAL);
    CHECK(logged("not an address"));
    bad[0].value = NULL;
    CHECK(vitastor_cluster_open(&options, &cluster) == -EINVAL);
    bad[0].value = "127.0.0.1:1";
    memset(&longer, 0, sizeof(longer));
    longer.known = options;
    longer.known.struct_size = sizeof(longer);
    longer.unknown = 1;
    CHECK(vitastor_cluster_open(&longer.known, &cluster) == -EINVAL);
    longer.unknown = 0;
    CHECK(vitastor_cluster_open(&longer.known, &cluster) == 0);
    CHECK(vitastor_cluster_open(&options, &again) == 0);
    CHECK(cluster == again); /* one a process, counted */
    vitastor_cluster_close(again);
    vitastor_cluster_close(cluster);
    vitastor_cluster_close(NULL);
}

static void on_mapped(void *arg, int result, const struct vitastor_extent *extents, size_t count, uint64_t next_offset, const char *error)
{
    (void)extents;
    (void)next_offset;
    CHECK(count == 0 && error != NULL);
    on_purged(arg, result, error);
}

static void contexts_and_images(int own_thread)
{
    struct vitastor_option pairs[2] = { { "etcd_address", "127.0.0.1:1" }, { "max_etcd_attempts", "2" } };
    struct vitastor_cluster_options options;
    struct vitastor_context_options context_options;
    struct vitastor_image_options image_options;
    struct vitastor_purge_options purge_options;
    struct vitastor_merge_options merge_options;
    struct vitastor_map_options map_options;
    uint64_t layers[2] = { (UINT64_C(1) << 48) | 1, (UINT64_C(1) << 48) | 2 };
    struct result opened = { 0, 0 }, never = { 0, 0 }, purged = { 0, 0 }, merged = { 0, 0 }, mapped = { 0, 0 };
    vitastor_cluster *cluster = NULL;
    vitastor_context *context = NULL;
    vitastor_image *image = NULL;
    struct iovec iov;
    int i;
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.options = pairs;
    options.option_count = 2;
    options.log_fn = on_log;
    options.fail_fast = 1;
    CHECK(vitastor_cluster_open(&options, &cluster) == 0);
    memset(&context_options, 0, sizeof(context_options));
    CHECK(vitastor_context_open(cluster, &context_options, &context) == -EINVAL);
    context_options.struct_size = sizeof(context_options);
    context_options.own_thread = own_thread;
    CHECK(vitastor_context_open(NULL, &context_options, &context) == -EINVAL);
    CHECK(vitastor_context_open(cluster, &context_options, NULL) == -EINVAL);
    CHECK(vitastor_context_open(cluster, &context_options, &context) == 0);
    if (!own_thread)
        vitastor_cluster_close(cluster); /* the context keeps it */
    CHECK(vitastor_context_run(NULL, 0) == -EINVAL);
    CHECK(vitastor_context_collect(NULL) == -EINVAL);
    CHECK(vitastor_context_ready(NULL) == -EINVAL);
    if (own_thread) {
        CHECK(vitastor_context_run(context, 0) == -EINVAL);
        CHECK(vitastor_context_fd(context) == -EINVAL);
    } else {
        CHECK(vitastor_context_fd(context) >= 0);
        CHECK(vitastor_context_run(context, 0) >= 0);
    }

    memset(&image_options, 0, sizeof(image_options));
    image_options.struct_size = sizeof(image_options);
    CHECK(vitastor_image_open(context, &image_options, &image, on_done, &never) == -EINVAL);
    image_options.image = "";
    CHECK(vitastor_image_open(context, &image_options, &image, on_done, &never) == -EINVAL);
    image_options.image = NULL;
    image_options.pool = 70000;
    image_options.inode = 1;
    CHECK(vitastor_image_open(context, &image_options, &image, on_done, &never) == -EINVAL);
    image_options.pool = 1;
    image_options.inode = (UINT64_C(2) << 48) | 1; /* the pool twice, differently */
    CHECK(vitastor_image_open(context, &image_options, &image, on_done, &never) == -EINVAL);
    image_options.inode = 1;
    image_options.size_bytes = 100;
    CHECK(vitastor_image_open(context, &image_options, &image, on_done, &never) == -EINVAL);
    image_options.image = "img";
    CHECK(vitastor_image_open(context, &image_options, NULL, on_done, &never) == -EINVAL);
    CHECK(vitastor_image_open(context, &image_options, &image, on_done, &opened) == 0);
    CHECK(image != NULL);
    iov.iov_base = log_text;
    iov.iov_len = 4096;
    /* Not open yet. */
    CHECK(vitastor_read(image, context, 0, 4096, &iov, 1, on_done, &never) == -EINVAL);
    CHECK(vitastor_write(NULL, context, 0, 4096, &iov, 1, on_done, &never) == -EINVAL);
    CHECK(vitastor_read_bitmap(image, context, 0, 4096, NULL, on_done, &never) == -EINVAL);
    CHECK(vitastor_read_bitmap(NULL, context, 0, 4096, (uint8_t *)&never, on_done, &never) == -EINVAL);
    CHECK(vitastor_image_has_parent(NULL) == 0);
    CHECK(vitastor_write(image, NULL, 0, 4096, &iov, 1, on_done, &never) == -EINVAL);
    CHECK(vitastor_flush(image, context, on_done, &never) == -EINVAL);
    CHECK(vitastor_compare_write(image, context, 0, 4096, &iov, 1, UINT64_MAX, on_done, &never) == -EINVAL);
    memset(&purge_options, 0, sizeof(purge_options));
    purge_options.struct_size = sizeof(purge_options);
    CHECK(vitastor_purge(context, &purge_options, on_purged, &never) == -EINVAL);
    purge_options.pool = 1;
    purge_options.inode = 1;
    CHECK(vitastor_purge(context, &purge_options, NULL, &never) == -EINVAL);
    memset(&merge_options, 0, sizeof(merge_options));
    merge_options.struct_size = sizeof(merge_options);
    CHECK(vitastor_merge(context, &merge_options, on_purged, &never) == -EINVAL);
    merge_options.layers = layers;
    merge_options.layer_count = 1;
    CHECK(vitastor_merge(context, &merge_options, on_purged, &never) == -EINVAL);
    merge_options.layer_count = 2;
    merge_options.target = 2;
    CHECK(vitastor_merge(context, &merge_options, on_purged, &never) == -EINVAL);
    merge_options.target = 1;
    CHECK(vitastor_merge(context, &merge_options, NULL, &never) == -EINVAL);
    merge_options.cas = 2;
    CHECK(vitastor_merge(context, &merge_options, on_purged, &never) == -EINVAL);
    merge_options.cas = 0;
    layers[1] = 5; /* without its pool */
    CHECK(vitastor_merge(context, &merge_options, on_purged, &never) == -EINVAL);
    memset(&map_options, 0, sizeof(map_options));
    map_options.struct_size = sizeof(map_options);
    CHECK(vitastor_map_layers(context, &map_options, on_mapped, &never) == -EINVAL);
    map_options.layers = layers;
    map_options.layer_count = 2;
    CHECK(vitastor_map_layers(context, &map_options, on_mapped, &never) == -EINVAL);
    layers[1] = (UINT64_C(1) << 48) | 5;
    CHECK(vitastor_map_layers(context, &map_options, NULL, &never) == -EINVAL);
    map_options.min_offset = map_options.max_offset = 4096;
    CHECK(vitastor_map_layers(context, &map_options, on_mapped, &never) == -EINVAL);
    map_options.max_offset = 0;
    for (i = 0; i < 1000 && !own_thread && !opened.runs; i++)
        CHECK(vitastor_context_run(context, 100) >= 0);
    if (!own_thread) {
        CHECK(opened.runs == 1);
        CHECK(opened.value == -ETIMEDOUT);
        CHECK(logged("image img cannot be opened"));
        CHECK(vitastor_image_size(image) == 0);
        CHECK(vitastor_image_size(NULL) == 0);
        vitastor_image_close(image);
        vitastor_image_close(NULL);
        CHECK(vitastor_purge(context, &purge_options, on_purged, &purged) == 0);
        CHECK(vitastor_merge(context, &merge_options, on_purged, &merged) == 0);
        CHECK(vitastor_map_layers(context, &map_options, on_mapped, &mapped) == 0);
        CHECK(vitastor_context_next_timeout(context) >= -1);
    }
    /* With an open and a purge under way: both end, once. */
    vitastor_context_close(context);
    vitastor_context_close(NULL);
    if (own_thread) {
        vitastor_image_close(image); /* late, but before the cluster */
        vitastor_cluster_close(cluster);
    }
    CHECK(never.runs == 0);
    CHECK(opened.runs == 1);
    if (!own_thread)
        CHECK(purged.runs == 1 && purged.value < 0 && merged.runs == 1 && merged.value < 0 && mapped.runs == 1 && mapped.value < 0);
}

int main(void)
{
    CHECK(strncmp(vitastor_version(), "3.0.8", 5) == 0);
    clusters();
    contexts_and_images(0);
    contexts_and_images(1);
    if (failures)
        fprintf(stderr, "%d checks failed\n%s", failures, log_text);
    else
        printf("ok\n");
    return failures ? 1 : 0;
}
