#include "cli/digest.hpp"

#include <array>
#include <new>
#include <utility>

#include <openssl/evp.h>

namespace sida::cli {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_MD_CTX, FreeContext>;

/// OpenSSL's digests fail only for want of memory once they are set up.
void require(bool worked) {
  if (!worked) throw std::bad_alloc();
}

}  // namespace

struct Sha256::Impl {
  Context context;
};

Sha256::Sha256(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

Result<Sha256> Sha256::create() {
  auto impl = std::make_unique<Impl>(Impl{Context(EVP_MD_CTX_new())});
  require(impl->context != nullptr);
  if (EVP_DigestInit_ex(impl->context.get(), EVP_sha256(), nullptr) != 1) {
    return Error(Errc::unsupported, "OpenSSL has no SHA-256 here");
  }
  return Sha256(std::move(impl));
}

void Sha256::update(std::span<std::byte const> bytes) {
  require(EVP_DigestUpdate(impl_->context.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::hex() const {
  constexpr char kHex[] = "0123456789abcdef";
  Context const copy(EVP_MD_CTX_new());
  require(copy && EVP_MD_CTX_copy_ex(copy.get(), impl_->context.get()) == 1);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned count = 0;
  require(EVP_DigestFinal_ex(copy.get(), digest.data(), &count) == 1);
  std::string text;
  for (unsigned i = 0; i < count; ++i) {
    text += kHex[digest[i] >> 4];
    text += kHex[digest[i] & 15];
  }
  return text;
}

}  // namespace sida::cli
