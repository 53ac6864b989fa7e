package csidriver

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// A page has to stay under the 4 MiB that gRPC clients take. An entry is 200
// bytes or so (two context keys and a topology), and 5 KiB at the worst.
const (
	maxPage      = 4000    // entries
	maxPageBytes = 7 << 19 // 3.5 MiB
	// maxEmpty is how many pages of a backend may come to nothing before one is
	// answered without entries: whoever filters a long list asks again.
	maxEmpty = 1000
)

// listing is a list that is answered page by page.
type listing[R proto.Message] struct {
	name string // of the RPC, with what is filtered by: a token is good for it alone
	page func(backends.Page) (R, error)
	// look tells how many entries are left of the backend's page, and where its
	// token for the next one stands.
	look func(R) (entries int, next *string)
}

// answer gives one page of a list. The token is the backend's, and stands for the
// end of the page that it came with: a page with too many bytes is not cut but
// asked for anew, with fewer entries. A page of which nothing is left is no answer
// while there are more.
func (l listing[R]) answer(ctx context.Context, token string, maxEntries int32) (R, error) {
	var none R
	start, ok := openToken(l.name, token)
	if !ok {
		return none, backends.ErrStaleToken
	}
	page := backends.Page{Token: start, Limit: maxPage}
	if n := int(maxEntries); n > 0 {
		page.Limit = min(n, maxPage)
	}
	for empty := 0; ; {
		resp, err := l.page(page)
		if err != nil {
			return none, err
		}
		entries, next := l.look(resp)
		switch size := proto.Size(resp); {
		case size > maxPageBytes && page.Limit > 1:
			page.Limit = fewer(page.Limit, size)
		case entries == 0 && *next != "" && empty < maxEmpty && ctx.Err() == nil:
			page.Token, empty = *next, empty+1
		default:
			*next = sealToken(l.name, *next)
			return resp, nil
		}
	}
}

// fewer is how many entries to ask for when limit entries took size bytes.
func fewer(limit, size int) int {
	fitting := int64(limit) * maxPageBytes / int64(size)
	return max(1, min(limit/2, int(fitting)))
}

// checkPage checks what a page of a backend's must be, whatever is listed.
func checkPage(page backends.Page, entries int, next string) error {
	switch {
	case entries > page.Limit:
		return badAnswer("a page of %d entries, asked for were %d", entries, page.Limit)
	case !fits(next, maxString):
		return badAnswer("a page token of more than %d bytes, or not UTF-8", maxString)
	case next != "" && next == page.Token:
		return badAnswer("a page whose token is that of the page itself")
	}
	return nil
}

// A token that a CO gets is the backend's behind a checksum of it and of the list,
// so that what is no token of this list never reaches a backend: few would notice.
// A backend's token that leaves no room for a checksum (an ID may take all 128
// bytes) goes out as it is, and is the backend's to judge.
const sealBytes = len("abcdefg.")

var sealCode = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func sealToken(list, token string) string {
	if token == "" || len(token) > maxString-sealBytes {
		return token
	}
	return seal(list, token) + token
}

// openToken gives the backend's token.
func openToken(list, sealed string) (token string, ok bool) {
	switch n := len(sealed); {
	case n == 0:
		return "", true
	case n > maxString:
		return "", false
	case n > sealBytes && sealed[:sealBytes] == seal(list, sealed[sealBytes:]):
		return sealed[sealBytes:], true
	}
	return sealed, len(sealed) > maxString-sealBytes
}

func seal(list, token string) string {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE([]byte(list+"\x00"+token)))
	return sealCode.EncodeToString(sum[:]) + "."
}
