// expect: (cannot|could not) (be )?convert|no (viable conversion|known conversion|matching function)
#include "sida/core/expert_id.hpp"

void load(sida::ExpertId id);

void use() {
  load({.layer = 1, .expert = 2});
#ifdef MISUSE
  load(1);
#endif
}
