local column = patchbay.column

return {
    up = function(m)
        m:create_table("kafka_topic_data_output_configurations", {
            column.id(),
            column.text "cluster" { nullable = false },
            column.text "topic" { nullable = false },
            column.text "partitions" { nullable = false, default = "3" },
            column.text "cleanup_policy" { nullable = false, default = "delete" },
            column.text "retention" { nullable = false, default = "7d" },
            column.text "value_format" { nullable = false, default = "avro" },
            column.text "subject" { nullable = false, default = "" },
        })
    end,
}
