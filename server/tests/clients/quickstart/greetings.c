#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>

static char why[512];

static void check(int failed) {
    if (failed) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
}

static void set(rd_kafka_conf_t *settings, const char *name, const char *value) {
    check(rd_kafka_conf_set(settings, name, value, why, sizeof why) != RD_KAFKA_CONF_OK);
}

static rd_kafka_t *client(rd_kafka_type_t type) {
    rd_kafka_conf_t *settings = rd_kafka_conf_new();
    set(settings, "bootstrap.servers", "127.0.0.1:9092");
    if (type == RD_KAFKA_CONSUMER) {
        set(settings, "group.id", "readers");
        set(settings, "auto.offset.reset", "earliest");
    }
    rd_kafka_t *client = rd_kafka_new(type, settings, why, sizeof why);
    check(client == NULL);
    return client;
}

int main(void) {
    rd_kafka_t *producer = client(RD_KAFKA_PRODUCER);
    rd_kafka_producev(producer, RD_KAFKA_V_TOPIC("greetings"), RD_KAFKA_V_KEY("Ada", 3),
                      RD_KAFKA_V_VALUE("hello, Ada", 10), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    rd_kafka_flush(producer, 10000);
    rd_kafka_destroy(producer);

    rd_kafka_t *consumer = client(RD_KAFKA_CONSUMER);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, "greetings", RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(consumer, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    rd_kafka_message_t *record;
    while ((record = rd_kafka_consumer_poll(consumer, 10000))) {
        printf("%lld %.*s\n", (long long)record->offset, (int)record->len, (const char *)record->payload);
        rd_kafka_message_destroy(record);
    }
    rd_kafka_consumer_close(consumer);
    rd_kafka_destroy(consumer);
}
