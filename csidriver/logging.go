package csidriver

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// maxLogged bounds a value of a request in a log line.
const maxLogged = 256

// logRequest logs the redacted request before its handler runs, so that a call
// which never ends has been seen.
func (s *Server) logRequest(c *call) {
	if !s.opts.LogRequests || !s.logger.Enabled(c, slog.LevelDebug) {
		return
	}
	var request slog.Attr // empty: left out
	if m, ok := c.request().(proto.Message); ok {
		request = s.redact.attr("request", m)
	}
	s.log(c, c.start, slog.LevelDebug, "request",
		slog.String("method", c.method.name), slog.String("request_id", c.id()), request)
}

// log is LogAttrs of the logger without the line of code that logs, always the
// same one here: to find it takes a third of the time of a line. An error of the
// handler has nowhere to go, as in package slog.
func (s *Server) log(c *call, now time.Time, level slog.Level, msg string, attrs ...slog.Attr) {
	r := slog.NewRecord(now, level, msg, 0)
	r.AddAttrs(attrs...)
	_ = s.logger.Handler().Handle(c, r)
}

// logEnd logs one line when a call ends; err is a status or nil.
func (s *Server) logEnd(c *call, err error) {
	level := levelOf(c.method, err)
	if !s.logger.Enabled(c, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 6)
	attrs = append(attrs, slog.String("method", c.method.name), slog.String("request_id", c.id()))
	if attr, id := subject(c.request()); id != "" {
		attrs = append(attrs, slog.String(attr, id))
	}
	st, now := status.Convert(err), time.Now()
	attrs = append(attrs, slog.Duration("duration", now.Sub(c.start)), slog.String("code", st.Code().String()))
	if err != nil {
		attrs = append(attrs, slog.String("error", st.Message()))
	}
	s.log(c, now, level, "rpc", attrs...)
}

// levelOf is Info for what changes something, Debug for what reads, and Warn
// where somebody must look.
func levelOf(m *method, err error) slog.Level {
	switch status.Code(err) {
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unavailable:
		return slog.LevelWarn
	}
	if m.changes {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// atFault tells the codes that say something of the server and not of the
// request, as the semantic conventions list them.
func atFault(c codes.Code) bool {
	switch c {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}

// clip bounds a text, and says what it left out. It cuts no rune.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	cut := n
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.Clone(s[:cut]) + fmt.Sprintf("... (%d bytes more)", len(s)-cut)
}
