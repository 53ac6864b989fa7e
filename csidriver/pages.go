package csidriver

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// A page has to stay under the 4 MiB that gRPC clients take. An entry is 200
// bytes or so (two context keys and a topology), and 5 KiB at the worst.
const (
	maxPage      = 10_000  // entries
	maxPageBytes = 7 << 19 // 3.5 MiB
	// maxEmpty is how many pages of a backend may come to nothing before one is
	// answered without entries: whoever filters a long list asks again.
	maxEmpty = 1000
)

// pager is what is remembered of the pages of one kind of list.
type pager struct {
	// usual is how many entries fitted after a page had too many bytes; 0: none
	// had. Without it every page of a driver with large entries would be asked for
	// twice.
	usual atomic.Int64
}

func (p *pager) limit(maxEntries int32) int {
	limit := maxPage
	if n := int(p.usual.Load()); n > 0 {
		limit = n
	}
	if n := int(maxEntries); n > 0 {
		limit = min(n, limit)
	}
	return limit
}

// fitted lets the usual page grow again, to where it would be near its bytes.
func (p *pager) fitted(entries, size int) {
	usual := p.usual.Load()
	if usual > 0 && int64(entries) == usual && size <= maxPageBytes/2 {
		p.usual.CompareAndSwap(usual, min(2*usual, maxPage))
	}
}

// listing is a list that is answered page by page.
type listing[R proto.Message] struct {
	*pager
	name string // of the RPC, with what is filtered by: a token is good for it alone
	page func(backends.Page) (R, error)
	// look tells how many entries are left of the backend's page, and where its
	// token for the next one stands.
	look func(R) (entries int, next *string)
	// atMost is how many bytes the last page has at most, where that is known
	// without asking protobuf; nil: it is not.
	atMost func() int
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
	page := backends.Page{Token: start, Limit: l.limit(maxEntries)}
	for empty := 0; ; {
		resp, err := l.page(page)
		if err != nil {
			return none, err
		}
		entries, next := l.look(resp)
		switch size := l.size(resp); {
		case size > maxPageBytes && page.Limit > 1:
			page.Limit = fewer(min(page.Limit, entries), size)
			l.usual.Store(int64(page.Limit))
		case entries == 0 && *next != "" && empty < maxEmpty && ctx.Err() == nil:
			page.Token, empty = *next, empty+1
		default:
			*next = sealToken(l.name, *next)
			l.fitted(entries, size)
			return resp, nil
		}
	}
}

func (l listing[R]) size(resp R) int {
	if l.atMost != nil {
		if n := l.atMost(); n <= maxPageBytes {
			return n
		}
	}
	return proto.Size(resp)
}

// fewer is how many entries to ask for when so many took size bytes.
func fewer(entries, size int) int {
	fitting := int64(entries) * maxPageBytes / int64(size)
	return max(1, min(entries*9/10, int(fitting)))
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
