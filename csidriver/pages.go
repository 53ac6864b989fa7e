package csidriver

import (
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// A page has to stay under the 4 MiB that gRPC clients take. An entry is 200
// bytes or so (two context keys and a topology), and 5 KiB at the worst.
const (
	maxPage      = 4000    // entries
	maxPageBytes = 7 << 19 // 3.5 MiB
)

// onePage answers one page of a list. The token is the backend's, and stands for
// the end of the page that it came with: a page with too many bytes is not cut
// but asked for anew, with fewer entries.
func onePage[R proto.Message](token string, maxEntries int32, list func(backends.Page) (R, error)) (R, error) {
	page := backends.Page{Token: token, Limit: maxPage}
	if n := int(maxEntries); n > 0 {
		page.Limit = min(n, maxPage)
	}
	if len(token) > maxString {
		var none R
		return none, backends.ErrStaleToken // never one of ours: those are shorter
	}
	for {
		resp, err := list(page)
		if err != nil || page.Limit == 1 {
			return resp, err
		}
		size := proto.Size(resp)
		if size <= maxPageBytes {
			return resp, nil
		}
		page.Limit = fewer(page.Limit, size)
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
