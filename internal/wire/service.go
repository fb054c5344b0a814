package wire

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

var lineBreaks = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ")

// ServiceError makes header say that an answer is the error of a service, and returns the code and the description
// that it says.
func ServiceError(header natsgo.Header, code int, description string) (int, string) {
	code = cmp.Or(code, http.StatusInternalServerError)
	description = cmp.Or(strings.TrimSpace(lineBreaks.Replace(description)), http.StatusText(code), "error "+strconv.Itoa(code))
	header[micro.ErrorCodeHeader] = []string{strconv.Itoa(code)}
	header[micro.ErrorHeader] = []string{description}
	return code, description
}

// ReadServiceError returns the error that an answer is, if it is one. What services write is not always what ADR-32
// says: a code that is no number is 0 and begins the description, and all lines count.
func ReadServiceError(header natsgo.Header) (code int, description string, is bool) {
	codes, lines := header[micro.ErrorCodeHeader], header[micro.ErrorHeader]
	if codes == nil && lines == nil {
		return 0, "", false
	}
	description = strings.Join(lines, " ")
	if len(codes) == 0 {
		return 0, description, true
	}
	code, err := strconv.Atoi(strings.TrimSpace(codes[0]))
	if err == nil {
		return code, description, true
	}
	if text := strings.Join(codes, " "); description == "" {
		description = text
	} else if text != "" {
		description = text + ": " + description
	}
	return 0, description, true
}
