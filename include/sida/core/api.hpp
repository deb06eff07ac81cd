#pragma once

/// SIDA_API marks what the compiled library exports; everything else is hidden.
#if defined(_WIN32)
#define SIDA_API
#else
#define SIDA_API __attribute__((visibility("default")))
#endif
