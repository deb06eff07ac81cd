/* A program in C99: the versions, and one wave. */
#include <string.h>

#include "sida/c.h"

static sida_code read_expert(void* context, sida_expert_id expert, void* dst, size_t capacity_bytes,
                             sida_message* why) {
  (void)context;
  (void)why;
  memset(dst, (int)(1 + expert.expert), capacity_bytes);
  return SIDA_OK;
}

int main(void) {
  uint32_t const experts = 2;
  uint64_t const bytes = 4096;
  sida_source source = {0};
  sida_store_options options = {0};
  sida_store* store;
  sida_wave* wave;
  sida_expert_id const wanted = {0, 1};
  source.struct_size = sizeof source;
  source.layers = 1;
  source.experts_per_layer = &experts;
  source.record_bytes = &bytes;
  source.read = read_expert;
  options.struct_size = sizeof options;
  options.budget_bytes = 4096;
  if (sida_abi_version() != SIDA_ABI_VERSION || sida_version()[0] == '\0') return 1;
  if (sida_store_open(&source, &options, &store, NULL) != SIDA_OK) return 2;
  if (sida_wave_acquire(store, &wanted, 1, NULL, &wave, NULL) != SIDA_OK) return 3;
  if (((unsigned char const*)sida_wave_data(wave, 0))[4095] != 2) return 4;
  sida_wave_release(wave);
  return sida_store_close(store, NULL) == SIDA_OK ? 0 : 5;
}
