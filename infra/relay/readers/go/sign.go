package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// client calls one AWS service in its JSON 1.0 protocol. Credentials are read from the environment for every call, so
// that whoever renews them need not restart the process.
type client struct {
	endpoint, region, service string
	http                      *http.Client
}

// The service is given two seconds. Whoever waits longer holds up mail.
func newClient(endpoint, region, service string) client {
	return client{endpoint, region, service, &http.Client{Timeout: 2 * time.Second}}
}

// The largest item that DynamoDB has is 400 KB.
const maxAnswer = 1 << 20

func (c client) call(target string, input, output any) error {
	body, err := json.Marshal(input)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, c.endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.0")
	request.Header.Set("X-Amz-Target", target)
	c.sign(request, body, time.Now().UTC())
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.300q", target, response.Status, answer)
	}
	if output == nil {
		return nil
	}
	return json.Unmarshal(answer, output)
}

// sign adds the headers of AWS Signature Version 4 ("Create a signed AWS API request"): for a POST to "/" without a
// query, whose signed headers are these and no others.
func (c client) sign(request *http.Request, body []byte, now time.Time) {
	stamp := now.Format("20060102T150405Z")
	day := stamp[:8]
	headers := [][2]string{
		{"content-type", request.Header.Get("Content-Type")},
		{"host", request.URL.Host},
		{"x-amz-date", stamp},
	}
	request.Header.Set("X-Amz-Date", stamp)
	if token := os.Getenv("AWS_SESSION_TOKEN"); token != "" {
		request.Header.Set("X-Amz-Security-Token", token)
		headers = append(headers, [2]string{"x-amz-security-token", token})
	}
	headers = append(headers, [2]string{"x-amz-target", request.Header.Get("X-Amz-Target")})

	names := make([]string, len(headers))
	canonical := "POST\n/\n\n"
	for i, header := range headers {
		names[i] = header[0]
		canonical += header[0] + ":" + header[1] + "\n"
	}
	signed := strings.Join(names, ";")
	canonical += "\n" + signed + "\n" + hash(body)

	scope := strings.Join([]string{day, c.region, c.service, "aws4_request"}, "/")
	key := []byte("AWS4" + os.Getenv("AWS_SECRET_ACCESS_KEY"))
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	signature := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hash([]byte(canonical))))
	request.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		os.Getenv("AWS_ACCESS_KEY_ID"), scope, signed, signature))
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
