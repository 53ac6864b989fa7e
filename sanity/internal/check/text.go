package check

import (
	"strconv"

	"google.golang.org/protobuf/proto"
)

// Text is a message for people, without secrets.
func (t *T) Text(m proto.Message) string { return t.run.redactor.text(m) }

// Quote is a string with what cannot be seen in it, in ASCII.
func Quote(s string) string { return strconv.QuoteToASCII(s) }
