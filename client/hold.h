#pragma once

#include "client/file_client.h"

#include <utility>

namespace kdfs::client {

// Keeps new writes of a file from starting, so that none reaches the chunks after they were given
// up for collection, or cut. A recall forces them out after a while, but waits for a truncation.
class FileClient::Hold {
public:
    enum class For { kRemoval, kTruncation };
    // `inode` may be null.
    Hold(FileClient& client, InodeRef inode, For what)
        : client_(client), inode_(std::move(inode)), cuts_(what == For::kTruncation ? 1 : 0) {
        if (inode_) {
            ++inode_->holds;
            inode_->cuts += cuts_;
        }
    }
    ~Hold() { leave(); }
    // Lets writes go on.
    void end() {
        InodeRef inode = inode_;
        leave();
        if (inode && inode->holds == 0) {
            inode->flight_done.pulse();
            client_.pump(inode);
        }
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    Task<void> quiet() {
        while (inode_ && inode_->flights != 0) {
            co_await inode_->flight_done.wait();
        }
    }

private:
    void leave() {
        if (inode_) {
            --inode_->holds;
            inode_->cuts -= cuts_;
        }
        inode_.reset();
    }

    FileClient& client_;
    InodeRef inode_;
    size_t cuts_;
};

// A request to open a file, from before it is sent until the file counts as open here or the
// request has failed. Meanwhile nobody may tell the server that the file is not open here.
class FileClient::OpenAsk {
public:
    // `inode` is null if only the answer says which it is.
    OpenAsk(FileClient& client, InodeRef inode)
        : client_(client), number_(client.next_open_ask_++) {
        client_.open_asks_.insert(number_);
        pin(std::move(inode));
    }
    ~OpenAsk() { leave(); }
    OpenAsk(const OpenAsk&) = delete;
    OpenAsk& operator=(const OpenAsk&) = delete;

    // The server has opened it. To be called in the turn in which the answer is taken.
    void answered(InodeRef inode, bool write) {
        inode->server_open = true;
        inode->server_writes = inode->server_writes || write;
        pin(std::move(inode));
    }
    // The file is among the open ones, or the request has failed.
    void end() {
        InodeRef inode = inode_;
        leave();
        if (inode) {
            client_.close_unused(*inode);
        }
        if (client_.open_asks_.empty()) {
            client_.check_suspects();
        }
    }

private:
    void pin(InodeRef inode) {
        if (inode_) {
            --inode_->open_asks;
        }
        inode_ = std::move(inode);
        if (inode_) {
            ++inode_->open_asks;
        }
    }
    void leave() {
        pin(nullptr);
        client_.open_asks_.erase(number_);
    }

    FileClient& client_;
    uint64_t number_;
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
