#pragma once

#include "client/file_client.h"

#include <utility>

namespace kdfs::client {

// Keeps new writes of a file from starting, so that none reaches the chunks after they were given
// up for collection. A recall forces them out after a while.
class FileClient::Hold {
public:
    explicit Hold(FileClient& client, InodeRef inode) : client_(client), inode_(std::move(inode)) {
        if (inode_) {
            ++inode_->holds;
        }
    }
    ~Hold() {
        if (inode_) {
            --inode_->holds;
        }
    }
    // Lets writes go on.
    void end() {
        if (inode_ && --inode_->holds == 0) {
            inode_->flight_done.pulse();
            client_.pump(inode_);
        }
        inode_.reset();
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    Task<void> quiet() {
        while (inode_ && inode_->flights != 0) {
            co_await inode_->flight_done.wait();
        }
    }

private:
    FileClient& client_;
    InodeRef inode_;
};

// While the server is asked to open an inode, nobody may tell it that it is not open here.
class FileClient::OpenAsk {
public:
    explicit OpenAsk(InodeRef inode) : inode_(std::move(inode)) { ++inode_->open_asks; }
    ~OpenAsk() { --inode_->open_asks; }
    OpenAsk(const OpenAsk&) = delete;
    OpenAsk& operator=(const OpenAsk&) = delete;

private:
    InodeRef inode_;
};

// While the server is told that an inode is not open here, nobody may open it here without asking.
class FileClient::NotOpen {
public:
    explicit NotOpen(InodeRef inode) : inode_(std::move(inode)) {
        if (inode_) {
            ++inode_->told_not_open;
        }
    }
    ~NotOpen() {
        if (inode_) {
            --inode_->told_not_open;
        }
    }
    void end() {
        if (inode_ && --inode_->told_not_open == 0) {
            inode_->flight_done.pulse();
        }
        inode_.reset();
    }
    NotOpen(const NotOpen&) = delete;
    NotOpen& operator=(const NotOpen&) = delete;

private:
    InodeRef inode_;
};

}  // namespace kdfs::client
