/* An engine in C99: its experts stand in a file of its own, and sida keeps as many in memory as a budget allows.
 * Plans a few batches ahead, acquires waves, checks every byte that it is lent. */
#define _XOPEN_SOURCE 700 /* pread, mkstemp */

#include <inttypes.h>
#include <sida/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 3, EXPERTS = 8, TOP_K = 2, BATCHES = 6, SLOTS = 5, RECORD_BYTES = 3 * 64 * 96 * 4 };

typedef struct engine {
  int file;
} engine;

/* Byte `at` of an expert's record: no two experts, and no two places near each other, are alike. */
static unsigned char record_byte(sida_expert_id id, size_t at) {
  uint32_t x = (id.layer * EXPERTS + id.expert + 1) * UINT32_C(2654435761) + (uint32_t)at * UINT32_C(2246822519);
  x ^= x >> 15;
  x *= UINT32_C(3266489917);
  return (unsigned char)(x >> 24);
}

/* The experts that the router of `layer` picks for `batch`; ascending. */
static void route(uint32_t batch, uint32_t layer, sida_expert_id chosen[TOP_K]) {
  uint32_t const first = (5 * batch + 3 * layer) % (EXPERTS - 1);
  chosen[0].layer = chosen[1].layer = layer;
  chosen[0].expert = first;
  chosen[1].expert = first + 1;
}

static int write_experts(engine* e) {
  char path[] = "/tmp/c_engine_XXXXXX";
  static unsigned char record[RECORD_BYTES];
  sida_expert_id id;
  size_t at;
  e->file = mkstemp(path);
  if (e->file < 0) return 0;
  unlink(path); /* the file lives as long as it is open */
  for (id.layer = 0; id.layer < LAYERS; ++id.layer) {
    for (id.expert = 0; id.expert < EXPERTS; ++id.expert) {
      for (at = 0; at < RECORD_BYTES; ++at) record[at] = record_byte(id, at);
      if (write(e->file, record, RECORD_BYTES) != RECORD_BYTES) return 0;
    }
  }
  return 1;
}

/* sida calls this from its I/O threads, several at once: pread has no common file position. */
static sida_code read_expert(void* context, sida_expert_id id, void* dst, size_t capacity_bytes, sida_message* why) {
  engine const* const e = context;
  off_t const offset = (off_t)(id.layer * EXPERTS + id.expert) * RECORD_BYTES;
  (void)capacity_bytes; /* at least RECORD_BYTES, as promised to sida_store_open */
  if (pread(e->file, dst, RECORD_BYTES, offset) == RECORD_BYTES) return SIDA_OK;
  snprintf(why->text, why->capacity_bytes, "expert file: short read at offset %ld", (long)offset);
  return SIDA_IO;
}

static sida_code open_store(engine* e, sida_store** store, sida_message* why) {
  static uint32_t const experts[LAYERS] = {EXPERTS, EXPERTS, EXPERTS};
  static uint64_t const record_bytes[LAYERS] = {RECORD_BYTES, RECORD_BYTES, RECORD_BYTES};
  sida_source source = {0};
  sida_store_options options = {0};
  source.struct_size = sizeof source;
  source.layers = LAYERS;
  source.experts_per_layer = experts;
  source.record_bytes = record_bytes;
  source.read = read_expert;
  source.context = e;
  options.struct_size = sizeof options;
  options.io_threads = 2;
  options.policy = SIDA_POLICY_NEXT_USE;
  options.budget_bytes = SLOTS * (uint64_t)((RECORD_BYTES + 4095) / 4096 * 4096);
  return sida_store_open(&source, &options, store, why);
}

/* What a wave lends is what the file holds. */
static sida_code check_wave(sida_wave const* wave, sida_message* why) {
  size_t i, at;
  for (i = 0; i < sida_wave_size(wave); ++i) {
    sida_expert_id const id = sida_wave_expert(wave, i);
    unsigned char const* const data = sida_wave_data(wave, i);
    for (at = 0; at < RECORD_BYTES; ++at) {
      if (data[at] != record_byte(id, at)) {
        snprintf(why->text, why->capacity_bytes, "layer %" PRIu32 " expert %" PRIu32 ": byte %zu differs", id.layer,
                 id.expert, at);
        return SIDA_CORRUPT;
      }
    }
  }
  return SIDA_OK;
}

/* All layers of one batch, each a demand event that the batch's plan announced. */
static sida_code run_batch(sida_store* store, uint32_t batch, sida_plan plan, sida_message* why) {
  sida_plan_position position;
  position.plan = plan;
  for (position.event = 0; position.event < LAYERS; ++position.event) {
    sida_expert_id chosen[TOP_K];
    sida_wave* wave;
    sida_code code;
    route(batch, position.event, chosen);
    code = sida_wave_acquire(store, chosen, TOP_K, &position, &wave, why);
    if (code != SIDA_OK) return code;
    code = check_wave(wave, why); /* here an engine computes */
    sida_wave_release(wave);
    if (code != SIDA_OK) return code;
  }
  return sida_plan_drop(store, plan); /* nothing is left of it; a batch that is given up would end here too */
}

/* Plans of all batches first, as an engine with a queue of requests has them. */
static sida_code run_batches(sida_store* store, sida_message* why) {
  sida_plan plans[BATCHES];
  uint32_t batch, layer;
  for (batch = 0; batch < BATCHES; ++batch) {
    sida_expert_id chosen[LAYERS][TOP_K];
    sida_expert_set events[LAYERS];
    sida_code code;
    for (layer = 0; layer < LAYERS; ++layer) {
      route(batch, layer, chosen[layer]);
      events[layer].experts = chosen[layer];
      events[layer].count = TOP_K;
    }
    code = sida_plan_submit(store, events, LAYERS, &plans[batch], why);
    if (code != SIDA_OK) return code;
  }
  for (batch = 0; batch < BATCHES; ++batch) {
    sida_code const code = run_batch(store, batch, plans[batch], why);
    if (code != SIDA_OK) return code;
  }
  return SIDA_OK;
}

/* A prefill wants all experts of a layer, more than there are slots: sida serves them wave after wave. */
static sida_code run_prefill(sida_store* store, size_t* waves, sida_message* why) {
  sida_expert_id all[EXPERTS];
  sida_event* event;
  sida_code code;
  uint32_t i;
  for (i = 0; i < EXPERTS; ++i) {
    all[i].layer = 1;
    all[i].expert = i;
  }
  code = sida_event_begin(store, all, EXPERTS, NULL, &event, why);
  while (code == SIDA_OK) {
    sida_wave* wave;
    code = sida_event_next_wave(event, &wave, why);
    if (code != SIDA_OK || wave == NULL) break;
    code = check_wave(wave, why);
    sida_wave_release(wave);
    ++*waves;
  }
  sida_event_end(event);
  return code;
}

int main(void) {
  char text[256] = "";
  sida_message why = {text, sizeof text};
  engine e;
  sida_store* store = NULL;
  sida_stats stats = {0};
  size_t waves = 0;
  sida_code code;

  if (sida_abi_version() != SIDA_ABI_VERSION) {
    fprintf(stderr, "c_engine: built against another sida than the one that was loaded\n");
    return 1;
  }
  if (!write_experts(&e)) {
    perror("c_engine: expert file");
    return 1;
  }
  code = open_store(&e, &store, &why);
  if (code == SIDA_OK) code = run_batches(store, &why);
  if (code == SIDA_OK) code = run_prefill(store, &waves, &why);
  stats.struct_size = sizeof stats;
  if (code == SIDA_OK) code = sida_store_stats(store, &stats, &why);
  if (code != SIDA_OK) fprintf(stderr, "c_engine: %s: %s\n", sida_code_name(code), text);
  if (sida_store_close(store, NULL) != SIDA_OK) code = SIDA_INTERNAL;
  close(e.file);
  if (code != SIDA_OK) return 1;

  printf("sida %s: %d experts in %d slots; %" PRIu64 " events, %" PRIu64 " hits, %" PRIu64 " loads, %" PRIu64
         " of them ahead of demand; prefill in %zu waves\n",
         sida_version(), LAYERS * EXPERTS, SLOTS, stats.events, stats.hits, stats.loads, stats.prefetches, waves);
  /* Every event was served, 8 experts in waves of at most 5, and plans were of use. */
  if (stats.events != BATCHES * LAYERS + waves || waves != 2 || stats.prefetches_used == 0) {
    fprintf(stderr, "c_engine: the counters are not what this run must give\n");
    return 1;
  }
  return 0;
}
