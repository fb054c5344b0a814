package event_test

import (
	"bytes"
	"context"
	"log"
	"testing"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// The specification's fragment, as it is written there.
func fragment() {
	// 从配置文件加载
	factory, err := event.NewEventClientFactory()
	if err != nil {
		log.Fatal(err)
	}

	// 创建 NATS 客户端（自动 Consul 发现）
	client, err := factory.NewNATSClient(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	if err := client.Ping(context.Background()); err != nil { // what the fragment leaves to its reader
		log.Fatal(err)
	}
	log.Printf("connected: %v", client.IsConnected())
}

func TestFragment(t *testing.T) {
	t.Chdir(t.TempDir()) // no file there
	t.Setenv("ISA_CLOUD_NATS_URLS", natstest.RunServer(t).URL())
	var output bytes.Buffer
	log.SetOutput(&output)
	fragment()
	if !bytes.Contains(output.Bytes(), []byte("connected: true")) {
		t.Fatal(output.String())
	}
}
