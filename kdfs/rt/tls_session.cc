#include "kdfs/rt/tls_session.h"

#include "kdfs/base/check.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cstring>
#include <utility>

namespace kdfs {
namespace {

constexpr int kAlertReasonBase = SSL_AD_REASON_OFFSET;

std::string first_reason() {
    unsigned long code = ERR_peek_error();
    const char* text = code == 0 ? nullptr : ERR_reason_error_string(code);
    return text == nullptr ? "unknown TLS error" : text;
}

unsigned char* bytes_of(std::byte* data) { return reinterpret_cast<unsigned char*>(data); }
const unsigned char* bytes_of(const std::byte* data) {
    return reinterpret_cast<const unsigned char*>(data);
}

// A TLS 1.3 session that stands for an external pre-shared key.
SSL_SESSION* make_session(SSL* ssl, const ClusterKey& key) {
    constexpr unsigned char kAes128GcmSha256[] = {0x13, 0x01};
    const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kAes128GcmSha256);
    SSL_SESSION* session = SSL_SESSION_new();
    if (session != nullptr && cipher != nullptr &&
        SSL_SESSION_set1_master_key(session, bytes_of(key.data()), key.size()) == 1 &&
        SSL_SESSION_set_cipher(session, cipher) == 1 &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1) {
        return session;
    }
    SSL_SESSION_free(session);
    return nullptr;
}

}  // namespace

// What OpenSSL calls back; the session is the SSL's application data.
struct TlsSession::Callbacks {
    static TlsSession& session_of(SSL* ssl) {
        return *static_cast<TlsSession*>(SSL_get_app_data(ssl));
    }

    // Client: which key to offer.
    static int use_key(SSL* ssl,
                       const EVP_MD* digest,
                       const unsigned char** identity,
                       size_t* identity_bytes,
                       SSL_SESSION** session) {
        *session = nullptr;
        const TlsContext& context = session_of(ssl).context_;
        SSL_SESSION* made = make_session(ssl, context.self_key_);
        if (made == nullptr ||
            (digest != nullptr &&
             digest != SSL_CIPHER_get_handshake_digest(SSL_SESSION_get0_cipher(made)))) {
            SSL_SESSION_free(made);
            return made == nullptr ? 0 : 1;
        }
        *identity = reinterpret_cast<const unsigned char*>(context.self_identity_.data());
        *identity_bytes = context.self_identity_.size();
        *session = made;
        return 1;
    }

    // Server: the key that belongs to the identity a client offers. 0 breaks the handshake with the
    // alert internal_error, which the client takes for "another cluster"; success without a session
    // makes it fail for want of a certificate.
    static int find_key(SSL* ssl,
                        const unsigned char* identity,
                        size_t identity_bytes,
                        SSL_SESSION** session) {
        *session = nullptr;
        TlsSession& self = session_of(ssl);
        std::string_view text(reinterpret_cast<const char*>(identity), identity_bytes);
        Result<ClusterPeer> claimed = decode_identity(text);
        if (!claimed.ok()) {
            return 1;
        }
        if (claimed->cluster_id != self.context_.cluster_id_) {
            self.foreign_cluster_ = claimed->cluster_id;
            return 0;
        }
        Result<ClusterKey> key = derive_member_key(self.context_.key_, text);
        if (!key.ok()) {
            return 1;
        }
        *session = make_session(ssl, *key);
        OPENSSL_cleanse(key->data(), key->size());
        self.peer_ = claimed->peer;
        return 1;
    }
};

Result<std::unique_ptr<TlsContext>> TlsContext::create(const ClusterKey& key,
                                                       std::string cluster_id,
                                                       const PeerIdentity& self) {
    if (cluster_id.empty() || cluster_id.find(':') != std::string::npos) {
        return Error(Errc::kInvalidArgument, "cluster id \"" + cluster_id + "\" is not usable");
    }
    std::unique_ptr<TlsContext> out(new TlsContext());
    out->key_ = key;
    out->self_identity_ = encode_identity(cluster_id, self);
    out->cluster_id_ = std::move(cluster_id);
    KDFS_TRY_ASSIGN(out->self_key_, derive_member_key(key, out->self_identity_));
    SSL_CTX* context = SSL_CTX_new(TLS_method());
    out->context_ = context;
    bool good = context != nullptr && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
                SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1 &&
                SSL_CTX_set1_groups_list(context, "X25519:P-256") == 1 &&
                SSL_CTX_set_num_tickets(context, 0) == 1;
    if (!good) {
        std::string reason = first_reason();
        ERR_clear_error();
        return Error(Errc::kUnauthenticated,
                     "OpenSSL offers no TLS 1.3 with AES-128-GCM here: " + reason);
    }
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_psk_use_session_callback(context, &TlsSession::Callbacks::use_key);
    SSL_CTX_set_psk_find_session_callback(context, &TlsSession::Callbacks::find_key);
    return out;
}

TlsContext::~TlsContext() {
    SSL_CTX_free(context_);
    OPENSSL_cleanse(key_.data(), key_.size());
    OPENSSL_cleanse(self_key_.data(), self_key_.size());
}

Result<std::unique_ptr<TlsSession>> TlsSession::create(const TlsContext& context, Side side) {
    std::unique_ptr<TlsSession> out(new TlsSession(context, side));
    out->ssl_ = SSL_new(context.context_);
    BIO* in = BIO_new(BIO_s_mem());
    BIO* to = BIO_new(BIO_s_mem());
    if (out->ssl_ == nullptr || in == nullptr || to == nullptr) {
        BIO_free(in);
        BIO_free(to);
        return Error(Errc::kOverloaded, "no memory for a TLS connection");
    }
    SSL_set_bio(out->ssl_, in, to);
    SSL_set_app_data(out->ssl_, out.get());
    if (side == Side::kClient) {
        // A server that answers with a certificate instead of the key is refused. (Ours has none,
        // so a client without the key fails there.)
        SSL_set_verify(out->ssl_, SSL_VERIFY_PEER, nullptr);
        SSL_set_connect_state(out->ssl_);
    } else {
        SSL_set_accept_state(out->ssl_);
    }
    return out;
}

TlsSession::~TlsSession() {
    SSL_free(ssl_);
    ERR_clear_error();
}

void TlsSession::feed(std::span<const std::byte> bytes) {
    if (!bytes.empty()) {
        int size = static_cast<int>(bytes.size());
        int written = BIO_write(SSL_get_rbio(ssl_), bytes.data(), size);
        KDFS_CHECK(written == size);
    }
}

Result<bool> TlsSession::handshake() {
    ERR_clear_error();
    int done = SSL_do_handshake(ssl_);
    if (done == 1) {
        // Belt and braces: the key was used, nothing else lets anybody in.
        ERR_clear_error();
        if (SSL_session_reused(ssl_) != 1) {
            return Error(Errc::kUnauthenticated, "the peer did not prove the cluster key");
        }
        return true;
    }
    if (SSL_get_error(ssl_, done) == SSL_ERROR_WANT_READ) {
        return false;
    }
    return failure();
}

Error TlsSession::failure() {
    if (!foreign_cluster_.empty()) {
        ERR_clear_error();
        return {Errc::kWrongCluster,
                "the peer's cluster key is that of " + foreign_cluster_ + ", this node's that of " +
                    context_.cluster_id_ +
                    ": one of them has the wrong key file, or they are of different clusters"};
    }
    std::string reason = first_reason();
    int alert = ERR_GET_REASON(ERR_peek_error()) - kAlertReasonBase;
    ERR_clear_error();
    if (side_ == Side::kClient && alert == SSL_AD_INTERNAL_ERROR) {
        return {Errc::kWrongCluster,
                "the daemon there has another cluster key than this node (" + context_.cluster_id_ +
                    "): the key file is wrong, or the address is of another cluster; check both"};
    }
    if (side_ == Side::kClient && alert > 0) {
        return {Errc::kUnauthenticated,
                "the daemon there refused this node's cluster key (" + reason +
                    "): use the key file of its cluster"};
    }
    return {Errc::kUnauthenticated, "the peer did not prove the cluster key (" + reason + ")"};
}

// Neither read() nor write() clears OpenSSL's error queue first: it is empty, because every failure
// clears it, and clearing it costs as much as a small record.
Result<size_t> TlsSession::read(std::span<std::byte> out) {
    if (!SSL_has_pending(ssl_) && BIO_ctrl_pending(SSL_get_rbio(ssl_)) == 0) {
        return size_t{0};
    }
    size_t size = 0;
    int done = SSL_read_ex(ssl_, out.data(), out.size(), &size);
    if (done == 1) {
        return size;
    }
    int error = SSL_get_error(ssl_, done);
    if (error == SSL_ERROR_WANT_READ) {
        return size_t{0};
    }
    if (error == SSL_ERROR_ZERO_RETURN) {
        ERR_clear_error();
        return Error(Errc::kUnreachable, "the peer ended the TLS connection");
    }
    std::string reason = first_reason();
    ERR_clear_error();
    return Error(Errc::kMalformed, "what arrived is not of this TLS connection: " + reason);
}

Status TlsSession::write(std::span<const std::byte> bytes) {
    if (bytes.empty()) {
        return {};
    }
    size_t size = 0;
    // The output is memory, so all of it is taken at once.
    if (SSL_write_ex(ssl_, bytes.data(), bytes.size(), &size) != 1 || size != bytes.size()) {
        std::string reason = first_reason();
        ERR_clear_error();
        return Error(Errc::kUnreachable, "TLS takes no more data: " + reason);
    }
    return {};
}

std::span<const std::byte> TlsSession::output() {
    char* data = nullptr;
    long size = BIO_get_mem_data(SSL_get_wbio(ssl_), &data);
    std::span<const std::byte> all(reinterpret_cast<std::byte*>(data), static_cast<size_t>(size));
    return all.subspan(output_sent_);
}

void TlsSession::consume_output(size_t count) {
    output_sent_ += count;
    if (output().empty()) {
        BIO_reset(SSL_get_wbio(ssl_));
        output_sent_ = 0;
    }
}

std::string TlsSession::take_unread() {
    BIO* in = SSL_get_rbio(ssl_);
    std::string out(BIO_ctrl_pending(in), '\0');
    if (!out.empty()) {
        int size = BIO_read(in, out.data(), static_cast<int>(out.size()));
        KDFS_CHECK(size == static_cast<int>(out.size()));
    }
    return out;
}

Result<FrameSeal::Keys> TlsSession::export_seal_keys() const {
    constexpr std::string_view kLabel = "EXPORTER-kdfs-frame-seal";
    std::array<std::byte, 2 * sizeof(SealKey)> both{};
    if (SSL_export_keying_material(ssl_,
                                   bytes_of(both.data()),
                                   both.size(),
                                   kLabel.data(),
                                   kLabel.size(),
                                   nullptr,
                                   0,
                                   0) != 1) {
        ERR_clear_error();
        return Error(Errc::kUnauthenticated, "TLS gives no key for the frames");
    }
    // The first half is for what the client sends.
    FrameSeal::Keys keys;
    SealKey& to_server = side_ == Side::kClient ? keys.send : keys.receive;
    SealKey& to_client = side_ == Side::kClient ? keys.receive : keys.send;
    std::memcpy(to_server.data(), both.data(), to_server.size());
    std::memcpy(to_client.data(), both.data() + to_server.size(), to_client.size());
    return keys;
}

}  // namespace kdfs
