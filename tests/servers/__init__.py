"""Real servers for the tests: private ones on loopback, never those of the machine.

Shared by a whole test run (by all xdist workers), started in parallel when the first test that needs one
has been collected, stopped when the run ends, however it ends. As fixtures, by their names:

    # also: nats_server, jetstream, rabbitmq, kafka, apache_kafka, redis_server, mariadb, postgres, clickhouse
    def test_it(mosquitto, certs):
        Dial(f"mqtt://{mosquitto.address}?topic={mosquitto.unique('t')}")

A shared server cannot be stopped or frozen: others use it. Names on it (topics, queues, groups) must be the
test's own: `server.unique("orders")`. Its TLS ports show certificates of the fixture `certs`.

For a test's own ones there are factories; what they made is stopped with the test:

    def test_it(start_mosquitto, start_nats, start_kafka, start_redis):
        server = start_mosquitto(users={"u": "p"})  # the settings: see `Mosquitto`, `Nats`
        # others: start_server(Postgres)
        server.restart()                            # same ports; also stop() start() kill() freeze() thaw()

RabbitMQ and Kafka take seconds to start, so that there is one more of each for such tests, one test at a
time: `private_rabbitmq`, `private_kafka`. They are running and thawed when a test gets them.

`kafka` is Apache Kafka where Java and Maven are (scripts/setup fetches its jars), else librdkafka's mock
broker, which `kafka.real` tells; `apache_kafka`, `private_kafka` and `start_kafka` are always Apache Kafka.

A server that cannot be had skips the test with a sentence that says what to install; with CI set it fails.
Each server is a module here, of which `Server` (base.py) is the common part; `keeper.py` is the process that
the shared ones are children of, `run.py` what the processes of one test run have in common.
"""
